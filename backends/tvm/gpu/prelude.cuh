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
#define LVC_BLOCK (int)blockIdx.x
#define LVC_THREAD (int)threadIdx.x
#define LVC_FMA(x, y, z) __fmaf_rn(x, y, z)
#define LVC_DP4A(x, y, z) __dp4a(x, y, z)

typedef signed char lvc_int8;
typedef unsigned char lvc_uint8;
typedef unsigned short lvc_uint16;
typedef long long lvc_int64;

template <int bytes> struct lvc_vector;
template <> struct lvc_vector<2> { typedef unsigned short type; };
template <> struct lvc_vector<4> { typedef unsigned type; };
template <> struct lvc_vector<8> { typedef uint2 type; };
template <> struct lvc_vector<16> { typedef uint4 type; };
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
