// Pictures of bytes, scaled, cut and padded with the rounding of Pillow, which models are trained with.
#ifndef LVC_PICTURE_HPP
#define LVC_PICTURE_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "preprocessing.hpp"

namespace lvc::detail {

struct picture {
  int height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixels;  // row by row, channels last

  picture(int high, int wide, int deep, std::uint8_t fill = 0) : height(high), width(wide), channels(deep) {
    pixels.resize(place(high, 0), fill);
  }

  std::uint8_t *at(int y, int x) { return pixels.data() + place(y, x); }
  const std::uint8_t *at(int y, int x) const { return pixels.data() + place(y, x); }

 private:
  std::size_t place(int y, int x) const {
    auto row = static_cast<std::size_t>(y) * static_cast<std::size_t>(width);
    return (row + static_cast<std::size_t>(x)) * static_cast<std::size_t>(channels);
  }
};

/// For each place of the result the first one that it reads, and by how much it and those behind it count, in units of
/// 2^-22: a triangle or a cubic, wide enough not to miss a pixel where the picture shrinks.
class window {
 public:
  static constexpr int bits = 22;
  struct place {
    int first = 0, count = 0;
    std::size_t weights = 0;
  };

  window(int from, int to, preprocessing::filter filter) {
    double scale = static_cast<double>(from) / to, widened = std::max(scale, 1.0);
    double support = (filter == preprocessing::filter::bicubic ? 2.0 : 1.0) * widened;
    std::vector<double> shares;
    for (int i = 0; i < to; i++) {
      double centre = (i + 0.5) * scale, sum = 0;
      place here;
      here.first = std::max(static_cast<int>(centre - support + 0.5), 0);
      here.count = std::min(static_cast<int>(centre + support + 0.5), from) - here.first;
      here.weights = weights_.size();
      shares.clear();
      for (int j = 0; j < here.count; j++) {
        shares.push_back(weight((j + here.first - centre + 0.5) * (1.0 / widened), filter));
        sum += shares.back();
      }
      for (double share : shares) {
        double units = (sum != 0 ? share / sum : share) * (1 << bits);
        weights_.push_back(static_cast<int>(units < 0 ? units - 0.5 : units + 0.5));
      }
      places_.push_back(here);
    }
  }

  /// One byte of the result, from bytes that lie `step` apart.
  std::uint8_t apply(int i, const std::uint8_t *line, std::size_t step) const {
    const place &here = places_[static_cast<std::size_t>(i)];
    const int *weights = weights_.data() + here.weights;
    const std::uint8_t *at = line + static_cast<std::size_t>(here.first) * step;
    int sum = 1 << (bits - 1);
    for (int j = 0; j < here.count; j++, at += step) sum += *at * weights[j];
    return static_cast<std::uint8_t>(std::clamp(sum >> bits, 0, 255));
  }

 private:
  static double weight(double x, preprocessing::filter filter) {
    x = std::fabs(x);
    if (filter == preprocessing::filter::bilinear) return x < 1 ? 1 - x : 0;
    constexpr double a = -0.5;
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
  }

  std::vector<place> places_;
  std::vector<int> weights_;
};

/// The pixel that is read for each of the result, where none are mixed; beyond the last one there is nothing.
inline std::vector<int> nearest(int from, int to) {
  std::vector<int> made;
  double step = static_cast<double>(from) / to, at = step * 0.5;
  for (int i = 0; i < to; i++, at += step) made.push_back(static_cast<int>(at));
  return made;
}

inline picture across(const picture &from, int width, preprocessing::filter filter) {
  if (width == from.width) return from;
  auto channels = static_cast<std::size_t>(from.channels);
  picture made(from.height, width, from.channels);
  window windows(from.width, width, filter);
  for (int y = 0; y < from.height; y++)
    for (int x = 0; x < width; x++)
      for (std::size_t c = 0; c < channels; c++) made.at(y, x)[c] = windows.apply(x, from.at(y, 0) + c, channels);
  return made;
}

inline picture down(const picture &from, int height, preprocessing::filter filter) {
  if (height == from.height) return from;
  picture made(height, from.width, from.channels);
  window windows(from.height, height, filter);
  auto row = static_cast<std::size_t>(from.channels) * static_cast<std::size_t>(from.width);
  for (int y = 0; y < height; y++)
    for (std::size_t i = 0; i < row; i++) made.at(y, 0)[i] = windows.apply(y, from.at(0, 0) + i, row);
  return made;
}

inline picture scaled(const picture &from, int height, int width, preprocessing::filter filter) {
  auto channels = static_cast<std::size_t>(from.channels);
  if (filter == preprocessing::filter::nearest) {
    picture made(height, width, from.channels);
    std::vector<int> rows = nearest(from.height, height), columns = nearest(from.width, width);
    for (int y = 0; y < height; y++)
      for (int x = 0; x < width; x++) {
        int row = rows[static_cast<std::size_t>(y)], column = columns[static_cast<std::size_t>(x)];
        if (row < from.height && column < from.width) std::copy_n(from.at(row, column), channels, made.at(y, x));
      }
    return made;
  }
  bool is_down_first = from.height > height && from.height - height > 2 * (from.width - width);  // as Pillow 13
  if (is_down_first) return across(down(from, height, filter), width, filter);
  return down(across(from, width, filter), height, filter);
}

/// The part of a picture that begins somewhere.
inline picture cut(const picture &from, int top, int left, int height, int width) {
  picture made(height, width, from.channels);
  auto bytes = static_cast<std::size_t>(width) * static_cast<std::size_t>(from.channels);
  for (int y = 0; y < height; y++) std::copy_n(from.at(top + y, left), bytes, made.at(y, 0));
  return made;
}

}  // namespace lvc::detail
#endif
