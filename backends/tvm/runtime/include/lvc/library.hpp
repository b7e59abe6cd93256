// The code of a model: whether this machine can run it, and loading it without leaving a file.
#ifndef LVC_LIBRARY_HPP
#define LVC_LIBRARY_HPP

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <utility>

#include "../lvc.h"
#include "manifest.hpp"
#include "span.hpp"
#include "status.hpp"

namespace lvc::detail {

/// What lvc calls the kind of processor that this program is for; empty if it has no name for it.
inline const char *own_kind() {
#if defined(__x86_64__)
  return "x86-64";
#elif defined(__aarch64__)
  return "aarch64";
#elif defined(__arm__)
  return "armv7";
#else
  return "";
#endif
}

/// The first flag of a plan that Linux does not list of this processor; empty if there is none, or no list.
inline std::string missing_flag(const plan &needed) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; !needed.flags_key.empty() && std::getline(file, line);) {
    std::size_t colon = line.find(':');
    if (colon == line.npos || line.compare(0, needed.flags_key.size(), needed.flags_key)) continue;
    if (line.find_first_not_of(" \t", needed.flags_key.size()) != colon) continue;
    std::istringstream words(line.substr(colon + 1));
    std::set<std::string> listed;
    for (std::string word; words >> word;) listed.insert(word);
    for (const std::string &flag : needed.flags)
      if (!listed.count(flag)) return flag;
    return {};
  }
  return {};
}

inline status check_machine(const plan &needed, const std::string &target) {
  auto refused = [&](const std::string &why) {
    return status(errc::wrong_machine, "the artefact was built for " + shown(target) + ", and cannot run here: " + why);
  };
  const std::string &kind = needed.host.empty() ? needed.kind : needed.host;
  if (kind != own_kind()) return refused("it is code for " + shown(kind) + ", and this is a program for " + own_kind());
  if (std::string flag = missing_flag(needed); !flag.empty()) return refused("the processor lacks " + shown(flag));
  return {};
}

/// A file descriptor that closes.
class descriptor {
 public:
  descriptor() = default;
  explicit descriptor(int number) : number_(number) {}
  descriptor(descriptor &&other) noexcept : number_(std::exchange(other.number_, -1)) {}
  descriptor &operator=(descriptor &&other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~descriptor() {
    if (number_ >= 0) close(number_);
  }

  int get() const { return number_; }
  bool is_open() const { return number_ >= 0; }

  bool write(span<const std::uint8_t> content) const {
    while (!content.empty()) {
      ssize_t done = ::write(number_, content.data(), content.size());
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) return false;
      content = content.part(static_cast<std::size_t>(done), content.size() - static_cast<std::size_t>(done));
    }
    return true;
  }

 private:
  int number_ = -1;
};

/// A model's shared library, loaded from memory.
class library {
 public:
  library() = default;
  library(const library &) = delete;
  library &operator=(const library &) = delete;
  ~library() {
    if (handle_) dlclose(handle_);
  }

  status open(span<const std::uint8_t> content) {
    if (!open_in_memory(content) && !open_in_file(content))
      return {errc::cannot_load, "the artefact's code cannot be loaded: " + why_};
    bool has_all = find("lvc_model_info", info) && find("lvc_model_create", create) && find("lvc_run", run) &&
                   find("lvc_model_destroy", destroy) && find("lvc_status_text", text);
    if (!has_all) return damaged("its code lacks a function");
    if (info()->version == LVC_VERSION) return {};
    return {errc::wrong_version, "the artefact's code has the interface " + std::to_string(info()->version) +
                                     ", and this lvc.hpp knows " + std::to_string(LVC_VERSION)};
  }

  /// Finds what a model of several variants has beside the rest; code of older versions lacks it.
  status open_variants() {
    bool has_all = find("lvc_variant_info", variant_info) && find("lvc_run_variant", run_variant);
    return has_all ? status() : damaged("its code has no variants");
  }

  decltype(&lvc_model_info) info = nullptr;
  decltype(&lvc_variant_info) variant_info = nullptr;
  decltype(&lvc_run_variant) run_variant = nullptr;
  decltype(&lvc_model_create) create = nullptr;
  decltype(&lvc_run) run = nullptr;
  decltype(&lvc_model_destroy) destroy = nullptr;
  decltype(&lvc_status_text) text = nullptr;

 private:
  /// By a name that nothing else has as long as the descriptor is open: a loader gives what it knows by a name again.
  bool open_in_memory(span<const std::uint8_t> content) {
#if defined(__linux__) && defined(SYS_memfd_create)
    const unsigned close_on_exec = 1;
    descriptor file(static_cast<int>(syscall(SYS_memfd_create, "lvc-model", close_on_exec)));
    if (!file.is_open() || !file.write(content)) return false;
    file_ = std::move(file);
    return load("/proc/self/fd/" + std::to_string(file_.get()));
#else
    (void)content;
    return false;
#endif
  }

  bool open_in_file(span<const std::uint8_t> content) {
    const char *folder = std::getenv("TMPDIR");
    std::string name = std::string(folder && *folder ? folder : "/tmp") + "/lvc-XXXXXX";
    descriptor file(mkstemp(name.data()));
    bool is_written = file.is_open() && file.write(content);
    if (!is_written && why_.empty()) why_ = name + ": " + std::strerror(errno);
    bool is_loaded = is_written && load(name);
    if (file.is_open()) unlink(name.c_str());
    return is_loaded;
  }

  bool load(const std::string &name) {
    handle_ = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle_) return true;
    const char *why = dlerror();
    why_ = why ? why : "no reason is given";
    return false;
  }

  template <class Function>
  bool find(const char *name, Function &function) const {
    void *found = dlsym(handle_, name);
    std::memcpy(&function, &found, sizeof found);  // a cast between the two is not for every compiler
    return found != nullptr;
  }

  descriptor file_;
  void *handle_ = nullptr;
  std::string why_;
};

}  // namespace lvc::detail
#endif
