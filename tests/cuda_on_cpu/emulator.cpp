// Blocks, fibres and counts of the emulator: see emulator.hpp.
#include "emulator.hpp"

#include <stdarg.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace lvc_emulator {

struct Access {
  int site, turn, lane, bytes;
  uintptr_t address;
  bool is_shared;
};

struct Counts {
  long long sectors = 0, least_sectors = 0, wavefronts = 0, least_wavefronts = 0;
};

State state;
static std::vector<Fibre> fibres;
static std::vector<Memory> memories;
static std::vector<std::vector<Shadow>> shadows;
static std::vector<Poisoned *> shared;
static std::vector<Access> noted;
static std::map<std::pair<int, int>, int> turns;
static std::string error;
static Counts counted;
static void (*kernel)();

void leave() { _longjmp(state.scheduler, 1); }

void fail(const char *form, ...) {
  char text[512];
  va_list values;
  va_start(values, form);
  vsnprintf(text, sizeof text, form, values);
  va_end(values);
  if (error.empty())
    error = std::string(text) + ", block " + std::to_string(state.block) + ", thread " +
            std::to_string(state.current->number);
  state.current->done = true;
  leave();
}

void note_access(const void *address, int bytes, int site, bool is_shared) {
  if (noted.size() >= MOST_NOTED) return;
  int turn = turns[{site, state.current->number}]++;
  noted.push_back({site, turn, state.current->number, bytes, (uintptr_t)address, is_shared});
}

void register_shared(Poisoned *memory) { shared.push_back(memory); }

void forget(Shadow *shadow, long count) { std::fill(shadow, shadow + count, Shadow{NEVER, NEVER, NEVER, NEVER, false}); }

void copy_later(const Copy &copy) {
  for (int i = 0; i < copy.elements; i++) copy.shadows[i].is_coming = true;
  state.current->copies.push_back(copy);
}

void wait_for_copies(int groups) {
  Fibre *fibre = state.current;
  const int ended = (int)fibre->groups.size() - groups;
  const size_t last = ended > 0 ? fibre->groups[ended - 1] : 0;
  for (; fibre->arrived < last; fibre->arrived++) {
    const Copy &copy = fibre->copies[fibre->arrived];
    memcpy(copy.target, copy.source, copy.bytes);
    for (int i = 0; i < copy.elements; i++) {
      copy.shadows[i].is_coming = false;
      touch(copy.shadows[i], true, true, "shared", copy.index + i);
    }
  }
}

static void enter() {
  kernel();
  if (state.current->arrived < state.current->copies.size()) fail("a copy is never waited for");
  state.current->done = true;
  leave();
}

// Accesses of 8 and 16 bytes pass in two and four parts of a warp.
static void count_access(const std::vector<const Access *> &lanes) {
  const int bytes = lanes[0]->bytes, together = bytes <= 4 ? 32 : 128 / bytes;
  if (!lanes[0]->is_shared) {
    std::set<uintptr_t> sectors, touched;
    for (auto access : lanes)
      for (uintptr_t byte = access->address; byte < access->address + bytes; byte++) {
        sectors.insert(byte / 32);
        touched.insert(byte);
      }
    counted.sectors += sectors.size();
    counted.least_sectors += (touched.size() + 31) / 32;
    return;
  }
  for (int first = 0; first < WARP; first += together) {
    std::map<int, std::set<uintptr_t>> banks;
    for (auto access : lanes)
      if (access->lane >= first && access->lane < first + together)
        for (int word = 0; word < std::max(1, bytes / 4); word++)
          banks[(access->address / 4 + word) % 32].insert(access->address / 4 + word);
    size_t most = 0;
    for (auto &bank : banks) most = std::max(most, bank.second.size());
    counted.wavefronts += most;
    counted.least_wavefronts += most > 0;
  }
}

static void count_accesses() {
  std::map<std::pair<int, int>, std::vector<const Access *>> together;
  for (auto &access : noted) together[{access.site, access.turn}].push_back(&access);
  for (auto &lanes : together) count_access(lanes.second);
  noted.clear();
  turns.clear();
}

// Whether all threads of a block wait at one barrier, or all are done.
static bool is_together() {
  for (auto &fibre : fibres)
    if (fibre.done != fibres[0].done || (!fibre.done && fibre.waits != fibres[0].waits)) return false;
  return true;
}

static void resume(Fibre *fibre) {
  state.current = fibre;
  if (_setjmp(state.scheduler)) return;
  if (fibre->started) _longjmp(fibre->at, 1);
  fibre->started = true;
  setcontext(&fibre->first);
}

// Let a warp do what all its threads have come to do together; false if none has.
static bool run_together(int first, int count) {
  Fibre *lanes[WARP];
  int waiting = 0;
  for (int i = 0; i < count; i++) {
    lanes[i] = &fibres[first + i];
    waiting += lanes[i]->together != nullptr;
  }
  if (!waiting) return false;
  for (int i = 0; i < count; i++) waiting -= lanes[i]->waits != lanes[0]->waits;
  if (waiting < WARP) {
    error = "threads of a warp part at what they do together, block " + std::to_string(state.block);
    return false;
  }
  lanes[0]->together(lanes);
  for (auto lane : lanes) lane->together = nullptr;
  return true;
}

void load_matrices(Fibre *const *lanes) {
  for (int matrix = 0; matrix < 4; matrix++)
    for (int lane = 0; lane < WARP; lane++) {
      const char *row = (const char *)lanes[8 * matrix + lane / 4]->operands[1];
      memcpy((char *)lanes[lane]->operands[0] + 4 * matrix, row + 4 * (lane % 4), 4);
    }
}

void load_turned(Fibre *const *lanes) {
  for (int matrix = 0; matrix < 4; matrix++)
    for (int lane = 0; lane < WARP; lane++)
      for (int i = 0; i < 2; i++) {
        const char *row = (const char *)lanes[8 * matrix + lane % 4 * 2 + i]->operands[1];
        memcpy((char *)lanes[lane]->operands[0] + 4 * matrix + 2 * i, row + lane / 4 * 2, 2);
      }
}

static void run_block() {
  for (auto &fibre : fibres) {
    fibre.started = fibre.done = false;
    fibre.together = nullptr;
    fibre.copies.clear();
    fibre.groups.clear();
    fibre.arrived = 0;
  }
  for (auto memory : shared)
    if (memory->is_touched) memory->poison(), memory->is_touched = false;
  while (!fibres[0].done) {
    for (int first = 0; first < (int)fibres.size(); first += WARP) {
      const int count = std::min<int>(WARP, fibres.size() - first);
      do
        for (int i = 0; i < count; i++) {
          resume(&fibres[first + i]);
          if (!error.empty()) return;
        }
      while (run_together(first, count));
      if (!error.empty()) return;
    }
    state.interval++;
    if (!is_together()) {
      error = "threads part at a barrier, block " + std::to_string(state.block);
      return;
    }
  }
}

static void check_written() {
  for (size_t number = 0; number < shadows.size(); number++) {
    long missing = 0;
    for (auto &shadow : shadows[number]) missing += shadow.written == NEVER;
    if (missing && error.empty())
      error = "unwritten: " + std::to_string(missing) + " elements of argument " + std::to_string(number);
  }
}

const char *launch(int blocks, int threads, const Given *given, int arguments, long long *counts, void (*body)()) {
  error.clear();
  kernel = body;
  state.threads = threads;
  state.interval = 0;
  counted = Counts();
  shadows.assign(arguments, {});
  memories.assign(arguments, Memory());
  for (int i = 0; i < arguments; i++) {
    if (given[i].is_written) shadows[i].assign(given[i].elements, Shadow{NEVER, NEVER, NEVER, NEVER, false});
    memories[i] = {given[i].data, given[i].is_written ? shadows[i].data() : nullptr};
  }
  state.memories = memories.data();
  static std::vector<char *> stacks;
  while ((int)stacks.size() < threads) stacks.push_back((char *)malloc(STACK));
  fibres.assign(threads, Fibre());
  for (int i = 0; i < threads; i++) {
    Fibre &fibre = fibres[i];
    fibre.stack = stacks[i];
    fibre.number = i;
    getcontext(&fibre.first);
    fibre.first.uc_stack.ss_sp = fibre.stack;
    fibre.first.uc_stack.ss_size = STACK;
    fibre.first.uc_link = nullptr;
    makecontext(&fibre.first, enter, 0);
  }
  for (int block = 0; block < blocks && error.empty(); block++) {
    state.block = block;
    state.is_noting = block == blocks / 2;
    run_block();
    if (state.is_noting) count_accesses();
  }
  if (error.empty()) check_written();
  memcpy(counts, &counted, sizeof counted);
  return error.empty() ? nullptr : error.c_str();
}

}  // namespace lvc_emulator
