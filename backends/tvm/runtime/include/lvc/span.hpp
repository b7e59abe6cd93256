// A view of elements that lie one behind another, as std::span of C++20.
#ifndef LVC_SPAN_HPP
#define LVC_SPAN_HPP

#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <type_traits>
#include <utility>

namespace lvc {

template <class T>
class span {
 public:
  constexpr span() = default;
  constexpr span(T *data, std::size_t size) : data_(data), size_(size) {}

  /// Of anything with data() and size(), and of arrays.
  template <class C, class = std::enable_if_t<std::is_convertible_v<
                         std::remove_pointer_t<decltype(std::data(std::declval<C &>()))> (*)[], T (*)[]>>>
  constexpr span(C &&from) : data_(std::data(from)), size_(std::size(from)) {}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winit-list-lifetime"
#endif
  /// Of elements in braces, for as long as the statement lasts.
  template <class U = T, class = std::enable_if_t<std::is_const_v<U>>>
  constexpr span(std::initializer_list<std::remove_const_t<U>> from) : data_(from.begin()), size_(from.size()) {}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

  constexpr T *data() const { return data_; }
  constexpr std::size_t size() const { return size_; }
  constexpr bool empty() const { return size_ == 0; }
  constexpr T *begin() const { return data_; }
  constexpr T *end() const { return data_ + size_; }
  constexpr T &operator[](std::size_t place) const { return data_[place]; }
  constexpr span part(std::size_t first, std::size_t count) const { return {data_ + first, count}; }

 private:
  T *data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace lvc
#endif
