// From an image to a model's input, number for number as `lvc run` does it.
#ifndef LVC_PREPARE_HPP
#define LVC_PREPARE_HPP

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "model.hpp"
#include "picture.hpp"
#include "preprocessing.hpp"
#include "span.hpp"
#include "status.hpp"
#include "tensor.hpp"

namespace lvc {

/// An image that was decoded: bytes row by row, each pixel three (red, green, blue) or one (grey).
struct image_view {
  const std::uint8_t *pixels = nullptr;
  int height = 0, width = 0, channels = 3;
  std::ptrdiff_t row_bytes = 0;  // from one row to the next; 0 if there is nothing between them
};

namespace detail {

constexpr long long most_pixels = 64'000'000;

inline status unfit(const std::string &why) { return {errc::wrong_argument, "the image cannot be prepared: " + why}; }

inline std::string text_of(int height, int width) { return std::to_string(height) + "x" + std::to_string(width); }

/// The image with the channels that are asked for, greys as in ITU-R 601.
inline picture taken(const image_view &image, int channels) {
  picture made(image.height, image.width, channels);
  std::ptrdiff_t row_bytes = image.row_bytes ? image.row_bytes : std::ptrdiff_t{image.width} * image.channels;
  for (int y = 0; y < image.height; y++) {
    const std::uint8_t *from = image.pixels + y * row_bytes;
    for (int x = 0; x < image.width; x++, from += image.channels) {
      std::uint8_t *to = made.at(y, x);
      bool is_gray = image.channels == 1;
      if (channels == 3) to[0] = from[0], to[1] = from[is_gray ? 0 : 1], to[2] = from[is_gray ? 0 : 2];
      else if (is_gray) to[0] = from[0];
      else to[0] = static_cast<std::uint8_t>((from[0] * 19595u + from[1] * 38470u + from[2] * 7471u + 0x8000u) >> 16);
    }
  }
  return made;
}

inline status resize(picture &image, int height, int width, preprocessing::filter filter) {
  if (height == image.height && width == image.width) return {};
  if (height < 1 || width < 1 || static_cast<long long>(height) * width > most_pixels)
    return unfit("of " + text_of(image.height, image.width) + " it would become " + text_of(height, width));
  image = scaled(image, height, width, filter);
  return {};
}

inline status letterbox(picture &image, const preprocessing &how) {
  double scale = std::min(static_cast<double>(how.letterbox.height) / image.height,
                          static_cast<double>(how.letterbox.width) / image.width);
  int height = std::max(1, static_cast<int>(image.height * scale));
  int width = std::max(1, static_cast<int>(image.width * scale));
  status found = resize(image, height, width, how.interpolation);
  if (!found.ok()) return found;
  auto fill = static_cast<std::uint8_t>(how.letterbox_fill);
  picture whole(how.letterbox.height, how.letterbox.width, image.channels, fill);
  std::size_t bytes = static_cast<std::size_t>(width) * static_cast<std::size_t>(image.channels);
  for (int y = 0; y < height; y++) std::copy_n(image.at(y, 0), bytes, whole.at(y, 0));
  image = std::move(whole);
  return {};
}

/// To both sides, or so that the shorter one has `height`.
inline status resize(picture &image, const preprocessing &how) {
  int side = how.resize.height, width = how.resize.width;
  if (width) return resize(image, side, width, how.interpolation);
  double ratio = static_cast<double>(side) * std::max(image.height, image.width) / std::min(image.height, image.width);
  int longer = static_cast<int>(std::min(ratio, double{most_pixels}));
  bool is_upright = image.width <= image.height;
  return resize(image, is_upright ? longer : side, is_upright ? side : longer, how.interpolation);
}

inline status crop(picture &image, const preprocessing &how) {
  int height = how.crop.height, width = how.crop.width;
  if (height > image.height || width > image.width)
    return unfit("of " + text_of(image.height, image.width) + " it is smaller than crop=" + text_of(height, width));
  auto half = [](int rest) { return rest / 2 + (rest % 4 == 3); };  // to the even one, as Python rounds
  image = cut(image, half(image.height - height), half(image.width - width), height, width);
  return {};
}

inline float number_of(std::uint8_t byte, std::size_t channel, const preprocessing &how) {
  float made = byte;
  if (how.range == preprocessing::scale::one) made /= 255.0f;
  if (how.range == preprocessing::scale::symmetric) made /= 127.5f, made -= 1.0f;
  if (!how.mean.empty()) made -= how.mean[how.mean.size() == 1 ? 0 : channel];
  if (!how.std.empty()) made /= how.std[how.std.size() == 1 ? 0 : channel];
  return made;
}

/// Whether an input takes channels last, told from where 1 or 3 of them stand; false as well if it takes no images.
inline bool is_channels_last(const value &input) {
  auto is_count = [&](std::size_t axis) { return input.shape[axis] == 1 || input.shape[axis] == 3; };
  return input.shape.size() == 4 && is_count(3) && !is_count(1);
}

inline bool fits(const picture &image, const value &input) {
  if (input.shape.size() != 4) return false;
  std::size_t channels = is_channels_last(input) ? 3 : 1, rows = is_channels_last(input) ? 1 : 2;
  return input.shape[channels] == image.channels && input.shape[rows] == image.height &&
         input.shape[rows + 1] == image.width;
}

inline status check(const image_view &image, const preprocessing &how, const value &input, element_type given) {
  if (!image.pixels || image.height < 1 || image.width < 1 || (image.channels != 1 && image.channels != 3))
    return unfit("it has no pixels, or not one or three bytes each");
  if (static_cast<long long>(image.height) * image.width > most_pixels)
    return unfit("it has more than " + std::to_string(most_pixels) + " pixels");
  if (given != input.type) return unfit(described("input", input) + ", and other elements are given");
  bool takes_bytes = input.type.code == 1 || (input.type.code == 0 && input.type.bits > 8);
  if (input.type.code == 2 || (takes_bytes && how.keeps_bytes())) return {};
  return unfit(described("input", input) + ", and it becomes other numbers");
}

/// Do all that is done to bytes.
inline status shape(picture &image, const preprocessing &how, const value &input, std::size_t room) {
  status found;
  if (how.letterbox.height) found = letterbox(image, how);
  if (how.resize.height && found.ok()) found = resize(image, how);
  if (how.crop.height && found.ok()) found = crop(image, how);
  if (!found.ok() || (fits(image, input) && room == image.pixels.size())) return found;
  return unfit("it becomes " + text_of(image.height, image.width) + " with " + std::to_string(image.channels) +
               " channel(s), and " + described("input", input) + ", with room for " + std::to_string(room) +
               " elements of one image");
}

template <class T>
void write(const picture &image, const preprocessing &how, const value &input, span<T> to) {
  auto channels = static_cast<std::size_t>(image.channels), area = image.pixels.size() / channels;
  bool is_last = is_channels_last(input), is_turned = how.layout == preprocessing::channels::bgr;
  for (std::size_t i = 0; i < area; i++)
    for (std::size_t c = 0; c < channels; c++) {
      std::uint8_t byte = image.pixels[i * channels + (is_turned ? channels - 1 - c : c)];
      to[is_last ? i * channels + c : c * area + i] = static_cast<T>(number_of(byte, c, how));
    }
}

}  // namespace detail

/// Prepare one image for an input: `to` is any container with what it takes for one image of its batch, channels first
/// or last.
template <class C>
void prepare(const image_view &image, const preprocessing &how, const value &input, C &&to, status &found) {
  span<std::remove_pointer_t<decltype(std::data(to))>> room(to);
  found = detail::check(image, how, input, element_of<std::remove_reference_t<decltype(room[0])>>::type);
  if (!found.ok()) return;
  detail::picture made = detail::taken(image, how.channel_count());
  found = detail::shape(made, how, input, room.size());
  if (found.ok()) detail::write(made, how, input, room);
}

/// Prepare one image for the one input of a model, as its artefact says.
template <class C>
void prepare(const image_view &image, const model &of, C &&to, status &found) {
  if (of.inputs().size() != 1) return void(found = detail::unfit("the model does not have one input"));
  if (of.preprocessing_text().empty()) return void(found = detail::unfit("the artefact does not say how"));
  preprocessing how = preprocessing::parse(of.preprocessing_text(), found);
  if (found.ok()) prepare(image, how, of.inputs()[0], to, found);
}

#ifdef __cpp_exceptions
template <class C>
void prepare(const image_view &image, const preprocessing &how, const value &input, C &&to) {
  status found;
  prepare(image, how, input, to, found);
  detail::check(found);
}

template <class C>
void prepare(const image_view &image, const model &of, C &&to) {
  status found;
  prepare(image, of, to, found);
  detail::check(found);
}
#endif

}  // namespace lvc
#endif
