// Artefacts that are damaged, and what becomes of them.
#ifndef MUTATIONS_HPP
#define MUTATIONS_HPP

#include <iostream>
#include <map>
#include <random>

#include "files.hpp"

/// Damages a sound artefact in one to three ways.
class mutator {
 public:
  mutator(const bytes &sound, unsigned seed) : made_(sound), source_(seed) {}

  bytes make() {
    for (std::size_t times = 1 + below(3); times--;) change();
    return made_;
  }

 private:
  std::size_t below(std::size_t limit) { return limit ? source_() % limit : 0; }

  /// Half of the places lie in the directory or in the first header.
  std::size_t place() {
    std::size_t size = made_.size();
    switch (below(4)) {
    case 0: return size - 1 - below(std::min<std::size_t>(size, 280));
    case 1: return below(std::min<std::size_t>(size, 80));
    default: return below(size);
    }
  }

  void change() {
    if (made_.empty()) return;
    std::size_t at = place(), length = 1 + below(64), rest = made_.size() - at;
    auto begin = made_.begin() + static_cast<std::ptrdiff_t>(at);
    auto end = begin + static_cast<std::ptrdiff_t>(std::min(length, rest));
    switch (below(16)) {
    case 0: return made_.resize(at);
    case 1: return void(made_.erase(begin, end));
    case 2: return void(made_.insert(begin, length, static_cast<std::uint8_t>(source_())));
    case 3: return copy(begin, end);
    case 4:
    case 5: return std::fill(begin, end, below(2) ? 0xFF : 0);
    case 6:
    case 7:
    case 8: return number(at);
    case 9:
    case 10: made_[at] = static_cast<std::uint8_t>(source_()); return;
    default: made_[at] ^= static_cast<std::uint8_t>(1u << below(8));
    }
  }

  void copy(bytes::iterator begin, bytes::iterator end) {
    bytes part(begin, end);
    std::size_t to = below(made_.size() - part.size() + 1);
    std::copy(part.begin(), part.end(), made_.begin() + static_cast<std::ptrdiff_t>(to));
  }

  /// Sizes and places that lie.
  void number(std::size_t at) {
    const std::uint32_t values[] = {0, 1, 0xFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 0x04034B50, 0x02014B50};
    std::uint32_t value = below(8) ? values[below(std::size(values))] : static_cast<std::uint32_t>(made_.size());
    value += static_cast<std::uint32_t>(below(3));
    for (std::size_t i = at; i < std::min(at + 4, made_.size()); i++, value >>= 8)
      made_[i] = static_cast<std::uint8_t>(value);
  }

  bytes made_;
  std::mt19937 source_;
};

/// Damaged artefacts are refused, or run as the sound one does; prints what became of them.
class damaged_runs {
 public:
  damaged_runs(const char *name, const char *given) : sound_(read_whole(name)), input_(read_whole(given)) {
    lvc::model model = lvc::model::from_file(name);
    lvc::instance instance(model);
    wanted_ = run_whole(instance, model, input_);
  }

  void run_mutations(unsigned count) {
    for (unsigned seed = 0; seed < count; seed++)
      run(mutator(sound_, seed).make(), seed % 2, "mutation " + std::to_string(seed));
  }

  /// Of files whose names are read from standard input.
  void run_files() {
    for (std::string name; std::getline(std::cin, name);) run(read_whole(name.c_str()), 0, name);
  }

  void print() const {
    for (auto &[what, times] : counts_) std::printf("%d\t%s\n", times, what.c_str());
  }

 private:
  void run(const bytes &content, std::size_t offset, const std::string &which) {
    placed copy(content, offset);
    lvc::status found;
    lvc::model model = lvc::model::from_memory(copy.view(), found);
    check(static_cast<bool>(model) == found.ok(), "a model or a reason for " + which);
    counts_[found.ok() ? "ok" : found.message()]++;
    if (!model) return;
    lvc::instance instance(model);
    check(run_whole(instance, model, input_) == wanted_, "the right numbers from " + which);
  }

  bytes sound_, input_, wanted_;
  std::map<std::string, int> counts_;
};

#endif
