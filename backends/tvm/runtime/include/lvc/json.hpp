// JSON (RFC 8259) in ASCII, as lvc writes it, in one walk: whoever knows what comes asks for it, and skips the rest.
#ifndef LVC_JSON_HPP
#define LVC_JSON_HPP

#include <cstdint>
#include <string>
#include <string_view>

namespace lvc::detail {

/// Every function reads one value, and the white space before it; false if there is another one, or none that is sound.
class json {
 public:
  explicit json(std::string_view text) : at_(text.data()), end_(text.data() + text.size()) {}

  /// Read an object: `member(key)` has to read the value of each.
  template <class Member>
  bool object(Member member) {
    return list('{', '}', [&] {
      std::string key;
      return text(key) && sign(':') && member(key);
    });
  }

  /// Read an array: `item()` has to read each value.
  template <class Item>
  bool array(Item item) {
    return list('[', ']', item);
  }

  bool text(std::string &value) {
    value.clear();
    if (!sign('"')) return false;
    while (at_ != end_ && *at_ != '"') {
      char c = *at_++;
      if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7E) return false;
      if (c != '\\') value += c;
      else if (!escape(value)) return false;
    }
    return sign('"', false);
  }

  /// Read an integer from 0 to 2^53.
  bool integer(std::uint64_t &value) {
    space();
    const char *first = at_;
    for (value = 0; at_ != end_ && *at_ >= '0' && *at_ <= '9'; at_++) {
      value = value * 10 + static_cast<unsigned>(*at_ - '0');
      if (value > std::uint64_t{1} << 53) return false;
    }
    bool is_more = at_ != end_ && (*at_ == '.' || *at_ == 'e' || *at_ == 'E');
    return at_ != first && (*first != '0' || at_ == first + 1) && !is_more;
  }

  bool skip() {
    space();
    if (at_ == end_) return false;
    std::string ignored;
    switch (*at_) {
    case '{': return object([&](const std::string &) { return skip(); });
    case '[': return array([&] { return skip(); });
    case '"': return text(ignored);
    case 't': return word("true");
    case 'f': return word("false");
    case 'n': return word("null");
    case 'N': return word("NaN");  // Python writes it
    case 'I': return word("Infinity");
    default: return real();
    }
  }

  /// Whether nothing but white space is left.
  bool is_done() {
    space();
    return at_ == end_;
  }

 private:
  static constexpr unsigned deepest = 64;

  void space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) at_++;
  }

  bool sign(char wanted, bool may_have_space = true) {
    if (may_have_space) space();
    if (at_ == end_ || *at_ != wanted) return false;
    at_++;
    return true;
  }

  bool word(std::string_view wanted) {
    if (static_cast<std::size_t>(end_ - at_) < wanted.size() || std::string_view(at_, wanted.size()) != wanted)
      return false;
    at_ += wanted.size();
    return true;
  }

  bool digits() {
    const char *first = at_;
    while (at_ != end_ && *at_ >= '0' && *at_ <= '9') at_++;
    return at_ != first;
  }

  bool real() {
    if (*at_ == '-') at_++;
    if (at_ != end_ && *at_ == 'I') return word("Infinity");
    if (!digits()) return false;
    if (at_ != end_ && *at_ == '.' && (at_++, !digits())) return false;
    if (at_ == end_ || (*at_ != 'e' && *at_ != 'E')) return true;
    at_++;
    if (at_ != end_ && (*at_ == '+' || *at_ == '-')) at_++;
    return digits();
  }

  template <class Item>
  bool list(char open, char close, Item item) {
    if (depth_ == deepest || !sign(open)) return false;
    depth_++;
    if (!sign(close)) {
      do
        if (!item()) return false;
      while (sign(','));
      if (!sign(close)) return false;
    }
    depth_--;
    return true;
  }

  bool escape(std::string &value) {
    static constexpr std::string_view names = "\"\\/bfnrt", meant = "\"\\/\b\f\n\r\t";
    if (at_ == end_) return false;
    char c = *at_++;
    if (std::size_t place = names.find(c); place != names.npos) return value += meant[place], true;
    std::uint32_t point, low;
    if (c != 'u' || !hexadecimal(point)) return false;
    if (point >= 0xD800 && point < 0xDC00) {
      if (!word("\\u") || !hexadecimal(low) || low < 0xDC00 || low > 0xDFFF) return false;
      point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
    } else if (point >= 0xDC00 && point < 0xE000) {
      return false;
    }
    append(point, value);
    return true;
  }

  bool hexadecimal(std::uint32_t &value) {
    if (end_ - at_ < 4) return false;
    value = 0;
    for (int i = 0; i < 4; i++) {
      char c = *at_++;
      if (c >= '0' && c <= '9') value = value << 4 | static_cast<unsigned>(c - '0');
      else if (c >= 'a' && c <= 'f') value = value << 4 | static_cast<unsigned>(c - 'a' + 10);
      else if (c >= 'A' && c <= 'F') value = value << 4 | static_cast<unsigned>(c - 'A' + 10);
      else return false;
    }
    return true;
  }

  /// In UTF-8.
  static void append(std::uint32_t point, std::string &value) {
    auto byte = [&](std::uint32_t bits) { value += static_cast<char>(bits); };
    if (point < 0x80) return byte(point);
    if (point < 0x800) {
      byte(0xC0 | point >> 6);
    } else {
      if (point < 0x10000) byte(0xE0 | point >> 12);
      else byte(0xF0 | point >> 18), byte(0x80 | (point >> 12 & 63));
      byte(0x80 | (point >> 6 & 63));
    }
    byte(0x80 | (point & 63));
  }

  const char *at_, *end_;
  unsigned depth_ = 0;
};

}  // namespace lvc::detail
#endif
