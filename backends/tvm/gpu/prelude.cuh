/* What the text of kernels stands on. A program that defines these names itself can compile the same text elsewhere. */
#ifndef LVC_DEVICE
#define LVC_DEVICE
#define LVC_KERNEL(name, threads) extern "C" __global__ void __launch_bounds__(threads, 1) name
#define LVC_GLOBAL(type, name, count) type *__restrict__ name
#define LVC_SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define LVC_LOCAL(type, name, count) __align__(16) type name[count]
#define LVC_LOAD(memory, index) memory[index]
#define LVC_STORE(memory, index, value) memory[index] = value
#define LVC_COPY(bytes, target, at, source, place) \
  *reinterpret_cast<lvc_vector<bytes>::type *>(&target[at]) = \
      *reinterpret_cast<const lvc_vector<bytes>::type *>(&source[place])
#define LVC_WORD(memory, index) *reinterpret_cast<const int *>(&memory[index])
#define LVC_BARRIER() __syncthreads()
#define LVC_EXCHANGE(target, at, source, place, mask) target[at] = __shfl_xor_sync(0xffffffffu, source[place], mask)
#define LVC_BLOCK (int)blockIdx.x
#define LVC_THREAD (int)threadIdx.x
#define LVC_FMA(x, y, z) __fmaf_rn(x, y, z)
#define LVC_DP4A(x, y, z) __dp4a(x, y, z)
#define LVC_DP4A_UNSIGNED(x, y, z) lvc_dp4a_unsigned(x, y, z)

typedef signed char lvc_int8;
typedef unsigned char lvc_uint8;
typedef unsigned short lvc_uint16;
typedef long long lvc_int64;

struct lvc_half { unsigned short bits; };
__device__ inline float lvc_widen(lvc_half value) {
  float made;
  asm("cvt.f32.f16 %0, %1;" : "=f"(made) : "h"(value.bits));
  return made;
}
__device__ inline lvc_half lvc_narrow(float value) {
  lvc_half made;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(made.bits) : "f"(value));
  return made;
}

/* Unsigned bytes of the first word, signed ones of the second. */
__device__ inline int lvc_dp4a_unsigned(int x, int y, int z) {
  int made;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(made) : "r"(x), "r"(y), "r"(z));
  return made;
}

template <int bytes> struct lvc_vector;
template <> struct lvc_vector<2> { typedef unsigned short type; };
template <> struct lvc_vector<4> { typedef unsigned type; };
template <> struct lvc_vector<8> { typedef uint2 type; };
template <> struct lvc_vector<16> { typedef uint4 type; };

/* Copies to shared memory that are under way while the thread goes on, in groups. */
#define LVC_COPY_AHEAD(bytes, target, at, source, place) lvc_copy_ahead<bytes>(&target[at], &source[place])
#define LVC_COMMIT() asm volatile("cp.async.commit_group;" ::: "memory")
#define LVC_WAIT(groups) asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory")
template <int bytes> __device__ inline void lvc_copy_ahead(void *target, const void *source) {
  const unsigned to = (unsigned)__cvta_generic_to_shared(target);
  if (bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(__cvta_generic_to_global(source)) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(__cvta_generic_to_global(source)), "n"(bytes)
                 : "memory");
}

/* Products of matrices: four sums, four words of the first factor and two of the second of each thread of a warp. */
#define LVC_MATRICES(target, at, source, place) lvc_matrices(&target[at], &source[place])
#define LVC_TO_TF32(words, at) lvc_to_tf32(&words[at])
#define LVC_TURNED(target, at, source, place) lvc_turned(&target[at], &source[place])
#define LVC_MMA(type, sums, at, left, i, right, j) lvc_mma((type *)0, &sums[at], &left[i], &right[j])
#define LVC_MMA_OF(type, total, letter, shape)                                                                   \
  __device__ inline void lvc_mma(type *, total *d, const unsigned *a, const unsigned *b) {                       \
    asm volatile("mma.sync.aligned." shape " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"    \
                 : "+" letter(d[0]), "+" letter(d[1]), "+" letter(d[2]), "+" letter(d[3])                        \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                            \
  }
LVC_MMA_OF(lvc_uint16, float, "f", "m16n8k16.row.col.f32.bf16.bf16.f32")
LVC_MMA_OF(float, float, "f", "m16n8k8.row.col.f32.tf32.tf32.f32")
LVC_MMA_OF(lvc_int8, int, "r", "m16n8k32.row.col.s32.s8.s8.s32")
LVC_MMA_OF(lvc_uint8, int, "r", "m16n8k32.row.col.s32.u8.s8.s32")
#if __CUDA_ARCH__ >= 800
LVC_MMA_OF(lvc_half, float, "f", "m16n8k16.row.col.f32.f16.f16.f32")
#else
__device__ inline void lvc_mma(lvc_half *, float *d, const unsigned *a, const unsigned *b) {
  for (int i = 0; i < 2; i++)
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[2 * i]), "r"(a[2 * i + 1]), "r"(b[i]));
}
#endif
__device__ inline void lvc_to_tf32(unsigned *word) {
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(*word) : "f"(__uint_as_float(*word)));
}
#define LVC_MATRICES_OF(name, how)                                                                                \
  __device__ inline void name(unsigned *target, const void *source) {                                             \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4" how ".shared.b16 {%0, %1, %2, %3}, [%4];"                        \
                 : "=r"(target[0]), "=r"(target[1]), "=r"(target[2]), "=r"(target[3])                             \
                 : "r"((unsigned)__cvta_generic_to_shared(source))                                                \
                 : "memory");                                                                                     \
  }
LVC_MATRICES_OF(lvc_matrices, "")
LVC_MATRICES_OF(lvc_turned, ".trans")
#endif

template <class To, class From> __device__ inline To lvc_bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "as many bits");
  To made;
  memcpy(&made, &value, sizeof made);
  return made;
}

template <class T> __device__ inline T lvc_floordiv(T a, T b) { return a / b - (a % b != 0 && (a < 0) != (b < 0)); }
template <class T> __device__ inline T lvc_floormod(T a, T b) { return a - lvc_floordiv<T>(a, b) * b; }
template <class T> __device__ inline T lvc_min(T a, T b) { return a < b ? a : b; }
template <class T> __device__ inline T lvc_max(T a, T b) { return a > b ? a : b; }
template <class T> __device__ inline bool lvc_isnan(T a) { return a != a; }
