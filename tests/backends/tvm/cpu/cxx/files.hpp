// What the programs of these tests share: whole files, models run whole, and memory that ends where it ends.
#ifndef FILES_HPP
#define FILES_HPP

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "lvc.hpp"

using bytes = std::vector<std::uint8_t>;

inline bytes read_whole(const char *name) {
  std::ifstream file(name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_whole(const char *name, const void *data, std::size_t size) {
  std::ofstream(name, std::ios::binary).write(static_cast<const char *>(data), static_cast<std::streamsize>(size));
}

inline void check(bool condition, const std::string &what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s\n", what.c_str());
  std::exit(1);
}

/// Run an instance of a model with one output on all its inputs, which lie one behind another.
inline bytes run_whole(lvc::instance &instance, const lvc::model &model, const bytes &given) {
  std::vector<lvc::input> inputs;
  const std::byte *at = reinterpret_cast<const std::byte *>(given.data());
  for (const lvc::value &value : model.inputs()) {
    inputs.emplace_back(lvc::span<const std::byte>(at, value.bytes()));
    at += value.bytes();
  }
  bytes made(model.outputs()[0].bytes());
  lvc::span<std::byte> result(reinterpret_cast<std::byte *>(made.data()), made.size());
  instance.run(inputs, {result});
  return made;
}

/// A copy that begins so many bytes behind a multiple of 64, with nothing behind it.
class placed {
 public:
  placed(const bytes &content, std::size_t offset) : size_(content.size()) {
    check(!posix_memalign(&block_, 64, size_ + offset), "memory");
    at_ = static_cast<std::uint8_t *>(block_) + offset;
    if (size_) std::memcpy(at_, content.data(), size_);
  }
  placed(const placed &) = delete;
  placed &operator=(const placed &) = delete;
  ~placed() { std::free(block_); }

  lvc::span<const std::uint8_t> view() const { return {at_, size_}; }

 private:
  std::size_t size_;
  void *block_ = nullptr;
  std::uint8_t *at_ = nullptr;
};

#endif
