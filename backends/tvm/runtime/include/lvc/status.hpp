// What can go wrong, as an exception or as a status: the functions that can fail exist twice, as in std::filesystem.
// Without exceptions (-fno-exceptions) those that take a status are there alone.
#ifndef LVC_STATUS_HPP
#define LVC_STATUS_HPP

#include <stdexcept>
#include <string>
#include <utility>

namespace lvc {

enum class errc {
  ok,
  cannot_read,     // the file is not there, or may not be read
  damaged,         // what was read is no sound artefact
  wrong_version,   // it is of another version of lvc
  wrong_machine,   // it holds code that this machine cannot run
  cannot_load,     // the system refuses its code
  wrong_argument,  // what was given does not fit the model
  cannot_run,      // there is no memory, or there are no threads
};

/// How something ended: nothing, or a code and one sentence for people.
class status {
 public:
  status() = default;
  status(errc code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == errc::ok; }
  errc code() const { return code_; }
  const std::string &message() const { return message_; }

 private:
  errc code_ = errc::ok;
  std::string message_;
};

#ifdef __cpp_exceptions

class error : public std::runtime_error {
 public:
  explicit error(const status &found) : std::runtime_error(found.message()), code_(found.code()) {}
  errc code() const { return code_; }

 private:
  errc code_;
};

namespace detail {
inline void check(const status &found) {
  if (!found.ok()) throw error(found);
}
}  // namespace detail

#endif

namespace detail {

/// Text of an artefact as it may stand in a message: short, and nothing that a terminal obeys.
inline std::string shown(std::string text) {
  if (text.size() > 100) text = text.substr(0, 100) + "...";
  for (char &c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  return text;
}

inline status damaged(const std::string &why) { return {errc::damaged, "the artefact is damaged: " + why}; }

}  // namespace detail

}  // namespace lvc
#endif
