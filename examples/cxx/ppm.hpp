// Binary PPM and PGM files of 8 bits a channel (P6 and P5).
#ifndef PPM_HPP
#define PPM_HPP

#include <cctype>
#include <cstdint>
#include <fstream>
#include <istream>
#include <stdexcept>
#include <string>
#include <vector>

struct ppm {
  int height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixels;

  explicit ppm(const std::string &name) {
    std::ifstream file(name, std::ios::binary);
    char letter = 0, kind = 0;
    if (!file.get(letter).get(kind) || letter != 'P' || (kind != '5' && kind != '6'))
      throw std::runtime_error(name + " is no binary PPM or PGM file");
    channels = kind == '6' ? 3 : 1;
    width = number(file), height = number(file);
    if (width < 1 || height < 1 || number(file) != 255) throw std::runtime_error(name + " has no size, or not 8 bits");
    pixels.resize(static_cast<std::size_t>(height) * static_cast<std::size_t>(width * channels));
    if (!file.read(reinterpret_cast<char *>(pixels.data()), static_cast<std::streamsize>(pixels.size())))
      throw std::runtime_error(name + " is cut off");
  }

 private:
  /// The next number of at most 16384, and the one character behind it; -1 if there is none.
  static int number(std::istream &file) {
    std::string ignored;
    while (std::isspace(file.peek()) || file.peek() == '#')
      if (file.get() == '#') std::getline(file, ignored);
    int value = -1;
    while (std::isdigit(file.peek()) && value <= 16384) value = (value < 0 ? 0 : value * 10) + (file.get() - '0');
    return std::isspace(file.get()) && value <= 16384 ? value : -1;
  }
};

#endif
