// How an image becomes the input of a model, in the text form that artefacts hold.
#ifndef LVC_PREPROCESSING_HPP
#define LVC_PREPROCESSING_HPP

#include <cmath>
#include <cstddef>
#include <locale>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "status.hpp"

namespace lvc {

/// Done in this order; zeros and empty lists stand for what is not done.
struct preprocessing {
  struct size {
    int height = 0, width = 0;
  };
  enum class filter { bilinear, bicubic, nearest };
  enum class channels { rgb, bgr, gray };
  enum class scale { one, bytes, symmetric };  // of bytes: 0..1, 0..255, -1..1

  size letterbox;               // scale to fit, and fill at the right and bottom
  int letterbox_fill = 0;       // with this byte
  size resize;                  // with a width of 0 the height is that of the shorter side
  filter interpolation = filter::bilinear;
  size crop;                    // the centre
  channels layout = channels::rgb;
  scale range = scale::one;
  std::vector<float> mean, std;  // then (x - mean) / std, one number for all channels or one for each

  int channel_count() const { return layout == channels::gray ? 1 : 3; }

  /// Whether every number of the result is a byte of the image.
  bool keeps_bytes() const { return range == scale::bytes && mean.empty() && std.empty(); }

  /// Read `resize=256,crop=224,mean=0.485/0.456/0.406,std=0.229/0.224/0.225,layout=rgb,range=1`.
  static preprocessing parse(const std::string &text, status &found);

#ifdef __cpp_exceptions
  static preprocessing parse(const std::string &text) {
    status found;
    preprocessing made = parse(text, found);
    return detail::check(found), made;
  }
#endif
};

namespace detail {

class preprocessing_reader {
 public:
  explicit preprocessing_reader(preprocessing &made) : made_(made) {}

  status read(const std::string &text) {
    if (text.size() > most_text) return refused("it is too long");
    for (const std::string &item : split(text, ',')) {
      std::size_t equals = item.find('=');
      if (equals == item.npos || !set(item.substr(0, equals), item.substr(equals + 1)))
        return refused("'" + shown(item) + "' is no setting");
    }
    if (made_.letterbox.height && (made_.resize.height || made_.crop.height))
      return refused("it has both 'letterbox' and 'resize' or 'crop'");
    for (const auto *numbers : {&made_.mean, &made_.std})
      if (numbers->size() > 1 && numbers->size() != static_cast<std::size_t>(made_.channel_count()))
        return refused("it has a number for another count of channels");
    return {};
  }

 private:
  static constexpr int most_side = 16384;
  static constexpr std::size_t most_text = 4096;

  static status refused(const std::string &why) {
    return {errc::wrong_argument, "the preprocessing cannot be read: " + why};
  }

  /// Also what is empty: before a separator and behind the last.
  static std::vector<std::string> split(const std::string &text, char separator) {
    std::vector<std::string> made(1);
    for (char c : text) {
      if (c == separator) made.emplace_back();
      else made.back() += c;
    }
    return made;
  }

  bool set(const std::string &name, const std::string &text) {
    if (name == "letterbox") return letterbox(text);
    if (name == "resize") return sides(text, made_.resize, false);
    if (name == "crop") return sides(text, made_.crop, true);
    if (name == "mean") return numbers(text, made_.mean);
    if (name == "std") return numbers(text, made_.std) && !has_zero();
    if (name == "interpolation")
      return choose(text, {"bilinear", "bicubic", "nearest"}, made_.interpolation);
    if (name == "layout") return choose(text, {"rgb", "bgr", "gray"}, made_.layout);
    return name == "range" && choose(text, {"1", "255", "symmetric"}, made_.range);
  }

  template <class Choice>
  static bool choose(const std::string &text, std::initializer_list<const char *> names, Choice &made) {
    int place = 0;
    for (const char *name : names) {
      if (text == name) return made = static_cast<Choice>(place), true;
      place++;
    }
    return false;
  }

  /// Digits alone, up to `most`.
  static bool integer(const std::string &text, int most, int &made) {
    made = 0;
    if (text.empty() || text.size() > 5) return false;
    for (char c : text) {
      if (c < '0' || c > '9') return false;
      made = made * 10 + (c - '0');
    }
    return made <= most;
  }

  /// `height` or `heightxwidth`; one side is that of a square where it `is_square`.
  static bool sides(const std::string &text, preprocessing::size &made, bool is_square) {
    std::size_t cross = text.find('x');
    if (!integer(text.substr(0, cross), most_side, made.height) || !made.height) return false;
    if (cross != text.npos) return integer(text.substr(cross + 1), most_side, made.width) && made.width;
    made.width = is_square ? made.height : 0;
    return true;
  }

  bool letterbox(const std::string &text) {
    std::size_t at = text.find('@');
    made_.letterbox_fill = 0;
    if (at != text.npos && !integer(text.substr(at + 1), 255, made_.letterbox_fill)) return false;
    return sides(text.substr(0, at), made_.letterbox, true);
  }

  static bool numbers(const std::string &text, std::vector<float> &made) {
    made.clear();
    for (const std::string &item : split(text, '/')) {
      std::istringstream one(item);
      one.imbue(std::locale::classic());
      double number;
      if (!(one >> number) || one.peek() != std::char_traits<char>::eof() || !std::isfinite(number)) return false;
      made.push_back(static_cast<float>(number));
    }
    return !made.empty() && made.size() <= 3;
  }

  bool has_zero() const {
    for (float number : made_.std)
      if (number == 0) return true;
    return false;
  }

  preprocessing &made_;
};

}  // namespace detail

inline preprocessing preprocessing::parse(const std::string &text, status &found) {
  preprocessing made;
  found = detail::preprocessing_reader(made).read(text);
  return found.ok() ? made : preprocessing();
}

}  // namespace lvc
#endif
