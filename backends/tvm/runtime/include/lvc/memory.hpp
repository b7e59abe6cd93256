// Memory that begins where a model wants its weights, and files read into it.
#ifndef LVC_MEMORY_HPP
#define LVC_MEMORY_HPP

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "../lvc.h"
#include "span.hpp"
#include "status.hpp"

namespace lvc::detail {

inline constexpr std::uint32_t most_file_bytes = 0xFFFFFFFE;  // of a zip without its extension to 64 bits

inline bool is_aligned(const void *at) { return reinterpret_cast<std::uintptr_t>(at) % LVC_ALIGNMENT == 0; }

/// Bytes that begin at a multiple of LVC_ALIGNMENT.
class aligned_bytes {
 public:
  /// False if there is no memory for so many.
  bool resize(std::size_t size) {
    if (size > SIZE_MAX - LVC_ALIGNMENT) return false;
    std::size_t rounded = (size + LVC_ALIGNMENT) / LVC_ALIGNMENT * LVC_ALIGNMENT;
    data_.reset(static_cast<std::uint8_t *>(aligned_alloc(LVC_ALIGNMENT, rounded)));
    size_ = data_ ? size : 0;
    return data_ != nullptr;
  }

  void clear() { data_.reset(), size_ = 0; }
  std::uint8_t *data() const { return data_.get(); }
  std::size_t size() const { return size_; }

 private:
  struct release {
    void operator()(std::uint8_t *data) const { std::free(data); }
  };
  std::unique_ptr<std::uint8_t, release> data_;
  std::size_t size_ = 0;
};

inline status no_memory(std::size_t size) {
  return {errc::cannot_run, "there is no memory for the " + std::to_string(size) + " bytes of the artefact"};
}

inline status read_file(const std::string &name, aligned_bytes &content) {
  auto failed = [&](const char *why) { return status(errc::cannot_read, "cannot read '" + name + "': " + why); };
  struct closed {
    void operator()(std::FILE *file) const { std::fclose(file); }
  };
  int opened = open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe would wait for who writes into it
  std::unique_ptr<std::FILE, closed> file(opened < 0 ? nullptr : fdopen(opened, "rb"));
  struct stat about;
  if (!file || fstat(opened, &about)) return failed(std::strerror(errno));
  if (!S_ISREG(about.st_mode)) return failed("it is no file");
  auto size = static_cast<std::uintmax_t>(about.st_size);
  if (size > most_file_bytes) return failed("it is larger than 4 GB");
  if (!content.resize(static_cast<std::size_t>(size))) return no_memory(static_cast<std::size_t>(size));
  errno = 0;
  if (std::fread(content.data(), 1, content.size(), file.get()) == content.size()) return {};
  return failed(errno ? std::strerror(errno) : "it became shorter meanwhile");
}

}  // namespace lvc::detail
#endif
