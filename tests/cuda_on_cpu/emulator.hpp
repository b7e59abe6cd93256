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
#include <vector>

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
#define LVC_MATRICES(target, at, source, place) \
  lvc_emulator::matrices<lvc_emulator::load_matrices>(target, at, source, place, __COUNTER__)
#define LVC_TURNED(target, at, source, place) \
  lvc_emulator::matrices<lvc_emulator::load_turned>(target, at, source, place, __COUNTER__)
#define LVC_TO_TF32(words, at) lvc_emulator::to_tf32(words, at)
#define LVC_EXCHANGE(target, at, source, place, mask) \
  lvc_emulator::exchange<mask>(target, at, source, place, __COUNTER__)
#define LVC_MMA(type, sums, at, left, i, right, j) lvc_emulator::mma<type>(sums, at, left, i, right, j, __COUNTER__)
#define LVC_COPY_AHEAD(bytes, target, at, source, place) \
  lvc_emulator::copy_ahead<bytes>(target, at, source, place, __COUNTER__)
#define LVC_COMMIT() lvc_emulator::state.current->groups.push_back(lvc_emulator::state.current->copies.size())
#define LVC_WAIT(groups) lvc_emulator::wait_for_copies(groups)
#define LVC_BARRIER() lvc_emulator::barrier(__COUNTER__)
#define LVC_BLOCK lvc_emulator::state.block
#define LVC_THREAD lvc_emulator::state.current->number
#define LVC_FMA(x, y, z) __builtin_fmaf(x, y, z)
#define LVC_DP4A(x, y, z) lvc_emulator::dp4a<int8_t>(x, y, z)
#define LVC_DP4A_UNSIGNED(x, y, z) lvc_emulator::dp4a<uint8_t>(x, y, z)

typedef signed char lvc_int8;
typedef unsigned char lvc_uint8;
typedef unsigned short lvc_uint16;
typedef long long lvc_int64;

struct lvc_half {
  unsigned short bits;
};
inline float lvc_widen(lvc_half value) {
  _Float16 made;
  memcpy(&made, &value, sizeof made);
  return made;
}
inline lvc_half lvc_narrow(float value) {
  _Float16 made = value;
  lvc_half half;
  memcpy(&half, &made, sizeof half);
  return half;
}

namespace lvc_emulator {

// Who touched an element last, in which interval between barriers; whether a copy to it is on its way.
struct Shadow {
  int writer, written, reader, read;
  bool is_coming;
};

struct Memory {
  void *data;
  Shadow *shadow;  // null of what is only read
};

struct Poisoned {
  bool is_touched = true;
  virtual void poison() = 0;
};

// What a warp does together, when all its threads have come to it; each has left there where its operands are.
struct Fibre;
typedef void (*Together)(Fibre *const *lanes);

// A copy that is on its way: nobody may touch what it writes until its thread has waited for it.
struct Copy {
  void *target;
  const void *source;
  Shadow *shadows;
  int bytes, elements;
  long index;
};

struct Fibre {
  ucontext_t first;
  jmp_buf at;
  char *stack;
  bool started, done;
  int number, waits;
  Together together;
  void *operands[3];
  std::vector<Copy> copies;  // in order; of each group that has ended, how many there were then
  std::vector<size_t> groups;
  size_t arrived;
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
inline void touch(Shadow &shadow, bool writes, bool is_shared, const char *what, long index, bool by_warp = false) {
  int self = is_shared ? state.current->number : state.block * state.threads + state.current->number;
  if (by_warp) self = MANY;
  if (shadow.is_coming) fail("race: %s element %ld is still being copied", what, index);
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
  void check(long index, long size, bool writes, bool by_warp = false) {
    if (index < 0 || index + size > count) fail("out of bounds: shared element %ld of %ld", index + size - 1, count);
    is_touched = true;
    for (long i = index; i < index + size; i++) touch(shadow[i], writes, true, "shared", i, by_warp);
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
  source.check(place, bytes / sizeof(typename From::Element), false);
  target.check(at, bytes / sizeof(typename To::Element), true);
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

// Wait for the other threads of the warp, and let one do for all what they do together.
inline void together(int site, Together work) {
  state.current->waits = site;
  state.current->together = work;
  if (!_setjmp(state.current->at)) leave();
}

// ldmatrix: four matrices of eight rows of 16 bytes, whose places threads 8 i to 8 i + 7 give for matrix i.
// Transposed, each is of elements of two bytes.
void load_matrices(Fibre *const *lanes);
void load_turned(Fibre *const *lanes);

template <Together load, class To, class From> void matrices(To &target, long at, From &source, long place, int site) {
  static_assert(sizeof(typename To::Element) == 4, "words");
  target.check(at, 4, true);
  source.check(place, 16 / sizeof(typename From::Element), false, true);
  const void *address = source.data + place;
  if ((uintptr_t)address % 16) fail("misaligned: a row of a matrix from element %ld", place);
  note(address, 16, site, true);
  state.current->operands[0] = target.data + at;
  state.current->operands[1] = (void *)address;
  together(site, load);
}

// shfl.sync.bfly: a word of the thread whose place in the warp differs in the bits of a mask.
template <int mask> void exchange_words(Fibre *const *lanes) {
  char words[WARP][4];
  for (int lane = 0; lane < WARP; lane++) memcpy(words[lane], lanes[lane ^ mask]->operands[1], 4);
  for (int lane = 0; lane < WARP; lane++) memcpy(lanes[lane]->operands[0], words[lane], 4);
}

template <int mask, class To, class From> void exchange(To &target, long at, From &source, long place, int site) {
  static_assert(sizeof(typename To::Element) == 4 && sizeof(typename From::Element) == 4, "words");
  static_assert(mask > 0 && mask < WARP, "another thread of the warp");
  target.check(at, 1, true);
  source.check(place, 1, false);
  state.current->operands[0] = target.data + at;
  state.current->operands[1] = source.data + place;
  together(site, exchange_words<mask>);
}

// cp.async: what it writes is there when its thread has waited for the group, and for others after a barrier.
void copy_later(const Copy &copy);
void wait_for_copies(int groups);

template <int bytes, class To, class From> void copy_ahead(To &target, long at, From &source, long place, int site) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16, "bytes of cp.async");
  const int size = bytes / sizeof(typename To::Element);
  source.check(place, bytes / sizeof(typename From::Element), false);
  target.check(at, size, true);
  const void *addresses[] = {source.data + place, target.data + at};
  for (const void *address : addresses)
    if ((uintptr_t)address % bytes) fail("misaligned: %d bytes from element %ld to %ld", bytes, place, at);
  note(addresses[0], bytes, site, kind(source) == 1);
  note(addresses[1], bytes, ~site, true);
  copy_later({target.data + at, source.data + place, target.shadow + at, bytes, size, at});
}

// What a word of each factor holds, and in what their products are added up.
template <class T> struct Words;
template <> struct Words<lvc_half> {
  enum { ELEMENTS = 2 };
  typedef float Total;
  typedef double Sum;  // of exact products, rounded once
  static Sum left(const void *word, int i) { return lvc_widen(((const lvc_half *)word)[i]); }
  static Sum right(const void *word, int i) { return left(word, i); }
};
template <> struct Words<lvc_uint16> {
  enum { ELEMENTS = 2 };
  typedef float Total;
  typedef double Sum;
  static Sum left(const void *word, int i) {
    uint32_t bits = (uint32_t)((const uint16_t *)word)[i] << 16;
    float made;
    memcpy(&made, &bits, sizeof made);
    return made;
  }
  static Sum right(const void *word, int i) { return left(word, i); }
};
template <> struct Words<float> {
  enum { ELEMENTS = 1 };
  typedef float Total;
  typedef double Sum;
  static Sum left(const void *word, int) {
    float made;
    memcpy(&made, word, sizeof made);
    return made;
  }
  static Sum right(const void *word, int i) { return left(word, i); }
};
template <> struct Words<lvc_int8> {
  enum { ELEMENTS = 4 };
  typedef int Total;
  typedef int Sum;
  static Sum left(const void *word, int i) { return ((const int8_t *)word)[i]; }
  static Sum right(const void *word, int i) { return left(word, i); }
};
template <> struct Words<lvc_uint8> : Words<lvc_int8> {
  static Sum left(const void *word, int i) { return ((const uint8_t *)word)[i]; }
};

// cvt.rna.tf32.f32: to the nearest number with 10 bits behind the point, ties away from zero.
template <class Memory> void to_tf32(Memory &words, long at) {
  static_assert(sizeof(typename Memory::Element) == 4, "words");
  words.check(at, 1, true);
  uint32_t bits;
  memcpy(&bits, words.data + at, sizeof bits);
  const bool is_number = (bits & 0x7fffffff) <= 0x7f800000;
  bits = is_number ? (bits + 0x1000) & ~0x1fffu : 0x7fffffff;
  memcpy(words.data + at, &bits, sizeof bits);
}

// mma.sync of 16 rows, 8 columns and 8 words, by the fragments of the PTX ISA: of thread 4 g + t of a warp the words of
// the first factor are those of rows g and g + 8, at t and then at t + 4; of the second those of column g, at t and
// t + 4; sums are of row g, columns 2 t and 2 t + 1, then of row g + 8.
template <class T> void multiply_matrices(Fibre *const *lanes) {
  typedef Words<T> W;
  enum { K = 8 * W::ELEMENTS };
  typename W::Sum left[16][K], right[8][K];
  auto word = [&](int group, int member, int operand, int number) {
    return (const char *)lanes[4 * group + member]->operands[operand] + 4 * number;
  };
  for (int k = 0; k < K; k++) {
    const int at = k / W::ELEMENTS, i = k % W::ELEMENTS;
    for (int row = 0; row < 16; row++)
      left[row][k] = W::left(word(row % 8, at % 4, 1, row / 8 + 2 * (at / 4)), i);
    for (int column = 0; column < 8; column++) right[column][k] = W::right(word(column, at % 4, 2, at / 4), i);
  }
  for (int row = 0; row < 16; row++)
    for (int column = 0; column < 8; column++) {
      auto *total = (typename W::Total *)word(row % 8, column / 2, 0, row / 8 * 2 + column % 2);
      typename W::Sum sum = *total;
      for (int k = 0; k < K; k++) sum += left[row][k] * right[column][k];
      *total = sum;
    }
}

// What a product in TF32 is of bits that TF32 has not is not defined.
inline void check_tf32(const void *words, int count) {
  for (int i = 0; i < count; i++) {
    uint32_t bits;
    memcpy(&bits, (const char *)words + 4 * i, sizeof bits);
    if (bits & 0x1fff && (bits & 0x7fffffff) <= 0x7f800000) fail("a factor is no TF32: bits %x", bits);
  }
}

template <class T, class Sums, class Left, class Right>
void mma(Sums &sums, long at, Left &left, long i, Right &right, long j, int site) {
  static_assert(std::is_same_v<typename Sums::Element, typename Words<T>::Total>, "sums of that type");
  sums.check(at, 4, true);
  left.check(i, 4, false);
  right.check(j, 2, false);
  if constexpr (std::is_same_v<T, float>) check_tf32(left.data + i, 4), check_tf32(right.data + j, 2);
  state.current->operands[0] = sums.data + at;
  state.current->operands[1] = left.data + i;
  state.current->operands[2] = right.data + j;
  together(site, multiply_matrices<T>);
}

template <class Left> int dp4a(int x, int y, int z) {
  Left a[4];
  int8_t b[4];
  memcpy(a, &x, 4);
  memcpy(b, &y, 4);
  unsigned total = z;  // it wraps around
  for (int i = 0; i < 4; i++) total += a[i] * b[i];
  return total;
}

// Run all blocks; the first fault, or null, and what was counted.
const char *launch(int blocks, int threads, const Given *given, int arguments, long long *counts, void (*body)());

}  // namespace lvc_emulator
