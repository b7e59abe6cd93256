/* The driver's interface for NVIDIA GPUs, found when a model is loaded, and the types of the tables that say what is
   launched. Names and numbers are those of NVIDIA's CUDA Driver API, which keeps them. */
#include <dlfcn.h>
#include <pthread.h>

typedef int lvc_result;           /* CUresult */
typedef uint64_t lvc_address;     /* CUdeviceptr */
typedef struct lvc_handle_of *lvc_handle; /* CUcontext, CUmodule, CUfunction, CUstream */

enum {
  LVC_CUDA_OUT_OF_MEMORY = 2,
  LVC_CUDA_STUB = 34,
  LVC_CUDA_NO_DEVICE = 100,
  LVC_CUDA_INVALID_IMAGE = 200,
  LVC_CUDA_NO_BINARY = 209,
  LVC_CUDA_INVALID_PTX = 218,
  LVC_CUDA_NEWER_PTX = 222,
  LVC_CUDA_MISMATCH = 803, /* of the driver's parts */
  LVC_CUDA_MAJOR = 75, LVC_CUDA_MINOR = 76, /* attributes of a device: its compute capability */
  LVC_CUDA_MEMORY_TYPE = 2, /* an attribute of an address */
  LVC_CUDA_OF_HOST = 1, /* memory of the host that the driver has pinned */
  LVC_CUDA_ON_DEVICE = 2,
  LVC_CUDA_NON_BLOCKING = 1, /* a stream that does not wait for the default one */
  LVC_CUDA_CAPTURE_OF_THREAD = 1 /* what other threads do meanwhile is not its business */
};

#define LVC_DRIVER_FUNCTIONS(F) \
  F(cuInit, (unsigned flags)) \
  F(cuDriverGetVersion, (int *version)) \
  F(cuDeviceGetCount, (int *count)) \
  F(cuDeviceGet, (int *device, int number)) \
  F(cuDeviceGetAttribute, (int *value, int attribute, int device)) \
  F(cuDevicePrimaryCtxRetain, (lvc_handle *context, int device)) \
  F(cuDevicePrimaryCtxRelease_v2, (int device)) \
  F(cuCtxPushCurrent_v2, (lvc_handle context)) \
  F(cuCtxPopCurrent_v2, (lvc_handle *context)) \
  F(cuModuleLoadData, (lvc_handle *module, const void *image)) \
  F(cuModuleUnload, (lvc_handle module)) \
  F(cuModuleGetFunction, (lvc_handle *function, lvc_handle module, const char *name)) \
  F(cuMemAlloc_v2, (lvc_address *address, size_t bytes)) \
  F(cuMemFree_v2, (lvc_address address)) \
  F(cuMemAllocHost_v2, (void **memory, size_t bytes)) \
  F(cuMemFreeHost, (void *memory)) \
  F(cuMemcpyHtoDAsync_v2, (lvc_address to, const void *from, size_t bytes, lvc_handle stream)) \
  F(cuMemcpyDtoHAsync_v2, (void *to, lvc_address from, size_t bytes, lvc_handle stream)) \
  F(cuMemcpyDtoDAsync_v2, (lvc_address to, lvc_address from, size_t bytes, lvc_handle stream)) \
  F(cuPointerGetAttribute, (void *value, int attribute, lvc_address address)) \
  F(cuCtxSynchronize, (void)) \
  F(cuStreamCreate, (lvc_handle *stream, unsigned flags)) \
  F(cuStreamSynchronize, (lvc_handle stream)) \
  F(cuStreamDestroy_v2, (lvc_handle stream)) \
  F(cuLaunchKernel, (lvc_handle function, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y, \
                     unsigned threads_z, unsigned shared, lvc_handle stream, void **arguments, void **extra)) \
  F(cuGetErrorName, (lvc_result result, const char **text)) \
  F(cuGetErrorString, (lvc_result result, const char **text))

/* Launches that are recorded once, and launched together then. Older drivers have none of it. */
#define LVC_GRAPH_FUNCTIONS(F) \
  F(cuStreamBeginCapture_v2, (lvc_handle stream, int mode)) \
  F(cuStreamEndCapture, (lvc_handle stream, lvc_handle *graph)) \
  F(cuGraphInstantiateWithFlags, (lvc_handle *made, lvc_handle graph, unsigned long long flags)) \
  F(cuGraphDestroy, (lvc_handle graph)) \
  F(cuGraphLaunch, (lvc_handle made, lvc_handle stream)) \
  F(cuGraphExecDestroy, (lvc_handle made))

typedef struct {
  void *library;
  int has_graphs;
#define LVC_FUNCTION(name, parameters) lvc_result(*name) parameters;
  LVC_DRIVER_FUNCTIONS(LVC_FUNCTION)
  LVC_GRAPH_FUNCTIONS(LVC_FUNCTION)
#undef LVC_FUNCTION
} lvc_driver;

/* What is launched: modules by where their code lies among all, functions by name, where pointers point, and launches
   of one-dimensional grids, which take pointers alone. */
typedef struct { uint64_t cubin, ptx; } lvc_image;
typedef struct { int32_t image; const char *name; } lvc_function;
typedef struct { int32_t base; uint64_t offset; } lvc_pointer;
typedef struct { int32_t function; uint32_t blocks, threads; int32_t pointer, pointers; } lvc_launch;
