// Runs kernels in CUDA C on one thread of a CPU, and checks what a GPU would not say.
//
// Blocks run one after the other, the threads of a block as fibres that change at barriers. Every access to memory is
// checked for its bounds, vectors for their alignment. Between two barriers no two threads may touch an element of
// shared memory if one of them writes it, nor of global memory, which threads of different blocks may not share at all.
// Every element that a kernel is given to write must be written. Memory begins as NaN. Of one warp the accesses are
// noted, to count bank conflicts and the sectors of global memory.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <type_traits>

#include "table.hpp"

#define LVC_DEVICE
#define __device__
#define LVC_KERNEL(name, threads) static void name
#define LVC_GLOBAL(type, name, count) lvc_emulator::Global<type, count> name
#define LVC_SHARED(type, name, count) static lvc_emulator::Shared<type, count> name
#define LVC_LOCAL(type, name, count) lvc_emulator::Local<type, count> name
#define LVC_LOAD(memory, index) memory.load(index, __COUNTER__)
#define LVC_STORE(memory, index, value) memory.store(index, value, __COUNTER__)
#define LVC_COPY(bytes, target, at, source, place) lvc_emulator::copy<bytes>(target, at, source, place, __COUNTER__)
#define LVC_WORD(memory, index) lvc_emulator::word(memory, index, __COUNTER__)
#define LVC_BARRIER() lvc_emulator::barrier(__COUNTER__)
#define LVC_BLOCK lvc_emulator::state.block
#define LVC_THREAD lvc_emulator::state.current->number
#define LVC_FMA(x, y, z) __builtin_fmaf(x, y, z)
#define LVC_DP4A(x, y, z) lvc_emulator::dp4a(x, y, z)

typedef signed char lvc_int8;
typedef unsigned char lvc_uint8;
typedef unsigned short lvc_uint16;
typedef long long lvc_int64;

namespace lvc_emulator {

// Who touched an element last, in which interval between barriers.
struct Shadow {
  int writer, written, reader, read;
};

struct Memory {
  void *data;
  Shadow *shadow;  // null of what is only read
};

struct Poisoned {
  bool is_touched = true;
  virtual void poison() = 0;
};

struct Fibre {
  ucontext_t first;
  jmp_buf at;
  char *stack;
  bool started, done;
  int number, waits;
};

struct State {
  Fibre *current;
  int block, threads, interval;
  bool is_noting;
  Memory *memories;
  jmp_buf scheduler;
};
extern State state;

enum { STACK = 256 << 10, MANY = -2, NEVER = -1, WARP = 32, MOST_NOTED = 400000 };

[[noreturn]] void fail(const char *form, ...);
[[noreturn]] void leave();
void note_access(const void *address, int bytes, int site, bool is_shared);
void register_shared(Poisoned *memory);
void forget(Shadow *shadow, long count);

inline void note(const void *address, int bytes, int site, bool is_shared) {
  if (state.is_noting && state.current->number < WARP) note_access(address, bytes, site, is_shared);
}

// Two threads may touch an element in one interval if both read it. Global memory has no barrier between blocks.
inline void touch(Shadow &shadow, bool writes, bool is_shared, const char *what, long index) {
  int self = is_shared ? state.current->number : state.block * state.threads + state.current->number;
  auto meets = [&](int other, int when) {
    if (when == NEVER || other == self || other == NEVER) return false;
    if (when == state.interval) return true;
    return !is_shared && other != MANY && other / state.threads != state.block;
  };
  if (meets(shadow.writer, shadow.written)) fail("race: %s element %ld was written by another thread", what, index);
  if (writes && meets(shadow.reader, shadow.read)) fail("race: %s element %ld was read by another thread", what, index);
  if (writes) {
    shadow.writer = self;
    shadow.written = state.interval;
  } else {
    shadow.reader = shadow.read == state.interval && shadow.reader != self ? (int)MANY : self;
    shadow.read = state.interval;
  }
}

template <class T, long count> struct Global {
  typedef std::remove_const_t<T> Element;
  enum { CONST = std::is_const_v<T> };
  Memory *memory;
  Element *data;
  Global(int number) : memory(&state.memories[number]), data((Element *)memory->data) {}

  void check(long index, long size, bool writes) {
    if (index < 0 || index + size > count) fail("out of bounds: global element %ld of %ld", index + size - 1, count);
    if (writes && CONST) fail("a constant is written: global element %ld", index);
    if (memory->shadow)
      for (long i = index; i < index + size; i++) touch(memory->shadow[i], writes, false, "global", i);
  }
  Element load(long index, int site) {
    check(index, 1, false);
    note(data + index, sizeof(T), site, false);
    return data[index];
  }
  void store(long index, Element value, int site) {
    check(index, 1, true);
    note(data + index, sizeof(T), site, false);
    data[index] = value;
  }
};

template <class T, long count> struct Shared : Poisoned {
  typedef T Element;
  alignas(128) T data[count];
  Shadow shadow[count];
  Shared() {
    register_shared(this);
    poison();
  }
  void poison() override {
    memset(data, 0xff, sizeof data);
    forget(shadow, count);
  }
  void check(long index, long size, bool writes) {
    if (index < 0 || index + size > count) fail("out of bounds: shared element %ld of %ld", index + size - 1, count);
    is_touched = true;
    for (long i = index; i < index + size; i++) touch(shadow[i], writes, true, "shared", i);
  }
  T load(long index, int site) {
    check(index, 1, false);
    note(data + index, sizeof(T), site, true);
    return data[index];
  }
  void store(long index, T value, int site) {
    check(index, 1, true);
    note(data + index, sizeof(T), site, true);
    data[index] = value;
  }
};

template <class T, long count> struct Local {
  typedef T Element;
  alignas(16) T data[count];
  Local() { memset(data, 0xff, sizeof data); }
  void check(long index, long size, bool) {
    if (index < 0 || index + size > count) fail("out of bounds: register %ld of %ld", index + size - 1, count);
  }
  T load(long index, int) {
    check(index, 1, false);
    return data[index];
  }
  void store(long index, T value, int) {
    check(index, 1, true);
    data[index] = value;
  }
};

template <class T, long count> constexpr int kind(const Global<T, count> &) { return 0; }
template <class T, long count> constexpr int kind(const Shared<T, count> &) { return 1; }
template <class T, long count> constexpr int kind(const Local<T, count> &) { return 2; }

template <int bytes, class To, class From> void copy(To &target, long at, From &source, long place, int site) {
  static_assert(sizeof(typename To::Element) == sizeof(typename From::Element), "elements of one size");
  const long size = bytes / sizeof(typename To::Element);
  source.check(place, size, false);
  target.check(at, size, true);
  const void *addresses[] = {source.data + place, target.data + at};
  for (const void *address : addresses)
    if ((uintptr_t)address % bytes) fail("misaligned: %d bytes from element %ld to %ld", bytes, place, at);
  if (kind(source) < 2) note(addresses[0], bytes, site, kind(source) == 1);
  if (kind(target) < 2) note(addresses[1], bytes, ~site, kind(target) == 1);
  memcpy(target.data + at, source.data + place, bytes);
}

template <class From> int word(From &source, long place, int site) {
  static_assert(sizeof(typename From::Element) == 1, "bytes");
  int made;
  source.check(place, sizeof made, false);
  if ((uintptr_t)(source.data + place) % sizeof made) fail("misaligned: a word from element %ld", place);
  note(source.data + place, sizeof made, site, kind(source) == 1);
  memcpy(&made, source.data + place, sizeof made);
  return made;
}

inline void barrier(int site) {
  state.current->waits = site;
  if (!_setjmp(state.current->at)) leave();
}

inline int dp4a(int x, int y, int z) {
  int8_t a[4], b[4];
  memcpy(a, &x, 4);
  memcpy(b, &y, 4);
  for (int i = 0; i < 4; i++) z += a[i] * b[i];
  return z;
}

// Run all blocks; the first fault, or null, and what was counted.
const char *launch(int blocks, int threads, const Given *given, int arguments, long long *counts, void (*body)());

}  // namespace lvc_emulator
