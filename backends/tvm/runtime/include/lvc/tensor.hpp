// What a model takes and gives: names, types and shapes, and views of the elements that a run reads and writes.
#ifndef LVC_TENSOR_HPP
#define LVC_TENSOR_HPP

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "span.hpp"
#include "status.hpp"

namespace lvc {

/// A type of elements: its short name as lvc writes it, `f32`, and its DLPack code and bits.
struct element_type {
  std::string_view name;
  std::uint8_t code = 0, bits = 0;

  std::size_t bytes() const { return bits / 8u; }
};

inline bool operator==(const element_type &one, const element_type &other) {
  return one.code == other.code && one.bits == other.bits;
}
inline bool operator!=(const element_type &one, const element_type &other) { return !(one == other); }

inline constexpr element_type element_types[] = {
    {"f64", 2, 64}, {"f32", 2, 32}, {"f16", 2, 16}, {"i64", 0, 64}, {"i32", 0, 32},
    {"i16", 0, 16}, {"i8", 0, 8},   {"u8", 1, 8},   {"bool", 6, 8},
};

/// The type of elements that a C++ type holds. A type of your own for 16-bit floats is told by a specialisation.
template <class T>
struct element_of {
  static_assert(std::is_arithmetic_v<T>, "give numbers, or std::byte for elements as they lie in memory");
  static constexpr std::uint8_t code = std::is_same_v<T, bool>       ? 6
                                       : std::is_floating_point_v<T> ? 2
                                       : std::is_unsigned_v<T>       ? 1
                                                                     : 0;
  static constexpr element_type type{"", code, static_cast<std::uint8_t>(8 * sizeof(T))};
};

/// Bytes are elements of any type.
template <>
struct element_of<std::byte> {
  static constexpr element_type type{"bytes", 0, 0};
};

/// A named input or output of a model.
struct value {
  std::string name;
  element_type type;
  std::vector<std::int64_t> shape;
  std::size_t elements = 0;

  std::size_t bytes() const { return elements * type.bytes(); }

  /// As lvc prints it, `f32[1,3,224,224]`.
  std::string spec() const {
    std::string text(type.name);
    for (std::size_t i = 0; i < shape.size(); i++) text += (i ? "," : "[") + std::to_string(shape[i]);
    return text + (shape.empty() ? "[]" : "]");
  }
};

/// What a model takes and gives.
struct signature {
  std::vector<value> inputs, outputs;
};

namespace detail {
inline std::string described(const char *side, const value &is) {
  return std::string(side) + " '" + shown(is.name) + "' is " + is.spec();
}
}  // namespace detail

/// Elements that a run reads; any container with them is one.
class input {
 public:
  template <class C, class T = std::remove_pointer_t<decltype(std::data(std::declval<const C &>()))>>
  input(const C &from)
      : data_(std::data(from)), bytes_(std::size(from) * sizeof(T)), type_(element_of<std::remove_cv_t<T>>::type) {}

  const void *data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  element_type type() const { return type_; }

 private:
  const void *data_;
  std::size_t bytes_;
  element_type type_;
};

/// Elements that a run writes.
class output {
 public:
  template <class C, class T = std::remove_pointer_t<decltype(std::data(std::declval<C &>()))>,
            class = std::enable_if_t<!std::is_same_v<std::decay_t<C>, output>>>
  output(C &&to) : data_(std::data(to)), bytes_(std::size(to) * sizeof(T)), type_(element_of<T>::type) {}

  void *data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  element_type type() const { return type_; }

 private:
  void *data_;
  std::size_t bytes_;
  element_type type_;
};

}  // namespace lvc
#endif
