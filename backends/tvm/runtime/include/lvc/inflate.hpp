// Deflated data (RFC 1951) made whole again, into memory of a size that is known.
#ifndef LVC_INFLATE_HPP
#define LVC_INFLATE_HPP

#include <cstdint>
#include <cstring>

#include "span.hpp"

namespace lvc::detail {

/// The bits of a text, those of a byte from the lowest on. What lies behind the end is missing, never read.
class bits {
 public:
  explicit bits(span<const std::uint8_t> from) : at_(from.begin()), end_(from.end()) {}

  /// The next bits without taking them, at most 32; zeros stand for those behind the end.
  std::uint32_t peek() {
    while (count_ <= 56 && at_ != end_) held_ |= std::uint64_t{*at_++} << count_, count_ += 8;
    return static_cast<std::uint32_t>(held_);
  }

  bool drop(unsigned count) {
    if (count > count_) return false;
    held_ >>= count;
    count_ -= count;
    return true;
  }

  /// Take up to 16 bits as a number.
  bool take(unsigned count, unsigned &value) {
    value = peek() & ((1u << count) - 1);
    return drop(count);
  }

  /// Copy whole bytes, from the next one on.
  bool copy(std::uint8_t *to, std::size_t size) {
    for (drop(count_ % 8); size && count_; size--) *to++ = static_cast<std::uint8_t>(held_), drop(8);
    if (static_cast<std::size_t>(end_ - at_) < size) return false;
    if (size) std::memcpy(to, at_, size);
    at_ += size;
    return true;
  }

  bool is_empty() const { return at_ == end_ && count_ < 8; }

 private:
  const std::uint8_t *at_, *end_;
  std::uint64_t held_ = 0;
  unsigned count_ = 0;
};

/// A canonical Huffman code, given by the length of each symbol's word: short words by a table, long ones bit by bit.
class huffman {
 public:
  /// False unless the lengths are those of a complete code, or of a single word of one bit, or there is none.
  bool build(span<const std::uint8_t> lengths) {
    std::memset(count_, 0, sizeof count_);
    std::memset(short_, 0, sizeof short_);
    for (unsigned length : lengths) count_[length]++;
    int left = 1;
    unsigned offsets[longest + 2] = {}, words[longest + 2] = {};
    for (unsigned length = 1; length <= longest; length++) {
      left = 2 * left - count_[length];
      if (left < 0) return false;
      offsets[length + 1] = offsets[length] + count_[length];
      words[length + 1] = (words[length] + count_[length]) << 1;
    }
    if (left && offsets[longest + 1] > count_[1]) return false;
    for (unsigned symbol = 0; symbol < lengths.size(); symbol++) {
      unsigned length = lengths[symbol];
      if (!length) continue;
      symbols_[offsets[length]++] = static_cast<std::uint16_t>(symbol);
      unsigned word = words[length]++;
      if (length <= quick) fill(word, length, symbol);
    }
    return true;
  }

  bool read(bits &from, unsigned &symbol) const {
    std::uint32_t next = from.peek();
    if (unsigned found = short_[next & ((1u << quick) - 1)]) {
      symbol = found >> 4;
      return from.drop(found & 15);
    }
    unsigned word = 0, first = 0, place = 0;
    for (unsigned length = 1; length <= longest; length++, next >>= 1) {
      word |= next & 1;
      if (word < first + count_[length]) {
        symbol = symbols_[place + word - first];
        return from.drop(length);
      }
      place += count_[length];
      first = (first + count_[length]) << 1;
      word <<= 1;
    }
    return false;
  }

 private:
  static constexpr unsigned longest = 15, quick = 10, most = 288;

  /// The words are read from their highest bit on, so the table has them the other way round.
  void fill(unsigned word, unsigned length, unsigned symbol) {
    unsigned turned = 0;
    for (unsigned bit = 0; bit < length; bit++) turned |= (word >> bit & 1) << (length - 1 - bit);
    auto found = static_cast<std::uint16_t>(symbol << 4 | length);
    for (; turned < 1u << quick; turned += 1u << length) short_[turned] = found;
  }

  std::uint16_t count_[longest + 1], symbols_[most], short_[1u << quick];
};

/// Inflates into exactly the memory that it is given.
class inflater {
 public:
  inflater(span<const std::uint8_t> from, span<std::uint8_t> to)
      : from_(from), begin_(to.begin()), at_(to.begin()), end_(to.end()) {}

  /// False unless the data are sound, and fill the memory to its end.
  bool run() {
    for (unsigned is_last = 0; !is_last;) {
      unsigned kind;
      if (!from_.take(1, is_last) || !from_.take(2, kind)) return false;
      if (!(kind == 0 ? stored() : kind == 1 ? fixed() : kind == 2 && dynamic())) return false;
    }
    return at_ == end_ && from_.is_empty();
  }

 private:
  bool stored() {
    std::uint8_t sizes[4];
    if (!from_.copy(sizes, 4)) return false;
    unsigned size = sizes[0] | unsigned{sizes[1]} << 8, negated = sizes[2] | unsigned{sizes[3]} << 8;
    if ((size ^ negated) != 0xFFFF || size > room() || !from_.copy(at_, size)) return false;
    at_ += size;
    return true;
  }

  bool fixed() {
    std::uint8_t lengths[288 + 32];
    std::memset(lengths, 8, 144);
    std::memset(lengths + 144, 9, 112);
    std::memset(lengths + 256, 7, 24);
    std::memset(lengths + 280, 8, 8);
    std::memset(lengths + 288, 5, 32);
    return literals_.build({lengths, 288}) && distances_.build({lengths + 288, 32}) && block();
  }

  bool dynamic() {
    static constexpr std::uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    unsigned literals, distances, codes;
    if (!from_.take(5, literals) || !from_.take(5, distances) || !from_.take(4, codes)) return false;
    literals += 257, distances += 1, codes += 4;
    if (literals > 286 || distances > 30) return false;
    std::uint8_t lengths[286 + 30] = {}, short_lengths[19] = {};
    for (unsigned place = 0, length; place < codes; place++) {
      if (!from_.take(3, length)) return false;
      short_lengths[order[place]] = static_cast<std::uint8_t>(length);
    }
    if (!literals_.build({short_lengths, 19}) || !read_lengths({lengths, literals + distances})) return false;
    if (!lengths[256]) return false;
    return literals_.build({lengths, literals}) && distances_.build({lengths + literals, distances}) && block();
  }

  bool read_lengths(span<std::uint8_t> lengths) {
    for (std::size_t place = 0; place < lengths.size();) {
      unsigned symbol, times;
      if (!literals_.read(from_, symbol)) return false;
      if (symbol < 16) {
        lengths[place++] = static_cast<std::uint8_t>(symbol);
        continue;
      }
      if (symbol == 16 && !place) return false;
      if (!from_.take(symbol == 16 ? 2 : symbol == 17 ? 3 : 7, times)) return false;
      times += symbol == 18 ? 11 : 3;
      if (times > lengths.size() - place) return false;
      std::memset(&lengths[place], symbol == 16 ? lengths[place - 1] : 0, times);
      place += times;
    }
    return true;
  }

  bool block() {
    static constexpr std::uint16_t sizes[] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                              31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
    static constexpr std::uint8_t size_bits[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                                 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
    static constexpr std::uint16_t backs[] = {1,   2,   3,   4,   5,   7,    9,    13,   17,   25,
                                              33,  49,  65,  97,  129, 193,  257,  385,  513,  769,
                                              1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
    for (;;) {
      unsigned symbol, extra, size, back;
      if (!literals_.read(from_, symbol)) return false;
      if (symbol == 256) return true;
      if (symbol < 256) {
        if (at_ == end_) return false;
        *at_++ = static_cast<std::uint8_t>(symbol);
        continue;
      }
      if (symbol > 285 || !from_.take(size_bits[symbol - 257], extra)) return false;
      size = sizes[symbol - 257] + extra;
      if (!distances_.read(from_, symbol) || symbol > 29) return false;
      if (!from_.take(symbol < 4 ? 0 : symbol / 2 - 1, extra)) return false;
      back = backs[symbol] + extra;
      if (back > static_cast<std::size_t>(at_ - begin_) || size > room()) return false;
      for (const std::uint8_t *source = at_ - back; size; size--) *at_++ = *source++;
    }
  }

  std::size_t room() const { return static_cast<std::size_t>(end_ - at_); }

  bits from_;
  std::uint8_t *begin_, *at_, *end_;
  huffman literals_, distances_;
};

inline bool inflate(span<const std::uint8_t> from, span<std::uint8_t> to) { return inflater(from, to).run(); }

}  // namespace lvc::detail
#endif
