/* Instances of a model on an NVIDIA GPU: the driver, the code that it loads, memory there, and the walk over launches.
   Behind the tables that describe the model.

   The GPU is the first one that the driver shows, in the context that other libraries of the process share. An instance
   has memory and a stream of its own; code, weights and what setup makes belong to the first one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LVC_PLACE = 256 }; /* tensors of a call begin at a multiple of so many bytes */

typedef struct {
  int device;
  lvc_handle context;
  lvc_handle modules[LVC_IMAGES], functions[LVC_FUNCTIONS];
  lvc_address constants; /* weights, and behind them what setup makes */
} lvc_gpu;

/* The launches of a variant between certain places, recorded once they were used twice in a row. */
typedef struct {
  lvc_handle made;
  lvc_address places[LVC_INPUTS + LVC_OUTPUTS + 1];
} lvc_graph;

struct lvc_model {
  lvc_gpu *gpu;
  int is_first, cannot_record;
  pid_t process;
  lvc_handle stream;
  lvc_address memory;
  unsigned char *pinned; /* memory of the host for tensors of a call, laid out as on the GPU; null if there is none */
  lvc_graph graphs[LVC_VARIANTS];
  lvc_address staging[LVC_INPUTS + LVC_OUTPUTS + 1];
  lvc_address bases[LVC_BASES]; /* inputs, outputs, weights, prepared, workspace, scratch */
};

extern const unsigned char lvc_code[] __attribute__((visibility("hidden")));

static lvc_driver lvc_cuda;
static pthread_mutex_t lvc_opening = PTHREAD_MUTEX_INITIALIZER;

static int lvc_status_of(lvc_result result) {
  switch (result) {
  case 0: return LVC_OK;
  case LVC_CUDA_OUT_OF_MEMORY: return LVC_OUT_OF_GPU_MEMORY;
  case LVC_CUDA_NO_DEVICE: return LVC_NO_GPU;
  case LVC_CUDA_STUB: return LVC_NO_DRIVER;
  case LVC_CUDA_MISMATCH: return LVC_OLD_DRIVER;
  default: return LVC_DRIVER_FAILED + result;
  }
}

static const char *lvc_driver_text(lvc_result result) {
  static _Thread_local char text[256];
  const char *name = 0, *sentence = 0;
  if (lvc_cuda.library) lvc_cuda.cuGetErrorName(result, &name), lvc_cuda.cuGetErrorString(result, &sentence);
  snprintf(text, sizeof(text), "the driver of the GPU reports %s (%d): %s", name ? name : "an unknown error", result,
           sentence ? sentence : "it says no more");
  return text;
}

static const char *lvc_gpu_text(int status) {
  switch (status) {
  case LVC_NO_DRIVER: return "there is no driver for NVIDIA GPUs: libcuda.so.1 cannot be opened";
  case LVC_NO_GPU: return "the driver finds no NVIDIA GPU";
  case LVC_OLD_GPU: return "the GPU is older than capability " LVC_CAPABILITY_TEXT ", which the code is for";
  case LVC_OLD_DRIVER: return "the driver is older than CUDA " LVC_COMPILER_TEXT ", which made the code";
  case LVC_OUT_OF_GPU_MEMORY: return "there is not enough memory on the GPU for the model";
  case LVC_FORKED: return "it was loaded before this process was forked, which a GPU does not survive: load it here";
  default: return status > LVC_DRIVER_FAILED ? lvc_driver_text(status - LVC_DRIVER_FAILED) : "this is no status of a model";
  }
}

static int lvc_find_functions(lvc_driver *driver) {
#define LVC_FUNCTION(name, parameters) \
  if (!(*(void **)&driver->name = dlsym(driver->library, #name))) return LVC_OLD_DRIVER;
  LVC_DRIVER_FUNCTIONS(LVC_FUNCTION)
#undef LVC_FUNCTION
  driver->has_graphs = 1;
#define LVC_FUNCTION(name, parameters) \
  if (!(*(void **)&driver->name = dlsym(driver->library, #name))) driver->has_graphs = 0;
  LVC_GRAPH_FUNCTIONS(LVC_FUNCTION)
#undef LVC_FUNCTION
  return LVC_OK;
}

/* Once opened, the driver stays. */
static int lvc_open_driver(void) {
  int status = LVC_OK;
  pthread_mutex_lock(&lvc_opening);
  if (!lvc_cuda.library) {
    lvc_driver found = {.library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)};
    status = found.library ? lvc_find_functions(&found) : LVC_NO_DRIVER;
    if (!status) lvc_cuda = found;
    else if (found.library) dlclose(found.library);
  }
  pthread_mutex_unlock(&lvc_opening);
  return status ? status : lvc_status_of(lvc_cuda.cuInit(0));
}

/* Device code where it fits the GPU, else the text that the driver compiles for it. */
static int lvc_load_image(lvc_handle *module, const lvc_image *image, int capability) {
  lvc_result result = LVC_CUDA_NO_BINARY;
  int version = 0;
  if (capability / 10 == LVC_CAPABILITY / 10) result = lvc_cuda.cuModuleLoadData(module, lvc_code + image->cubin);
  if (result == LVC_CUDA_NO_BINARY || result == LVC_CUDA_INVALID_IMAGE)
    result = lvc_cuda.cuModuleLoadData(module, lvc_code + image->ptx);
  int is_refused = result == LVC_CUDA_NO_BINARY || result == LVC_CUDA_INVALID_IMAGE || result == LVC_CUDA_INVALID_PTX;
  if (is_refused && !lvc_cuda.cuDriverGetVersion(&version) && version < LVC_COMPILER) return LVC_OLD_DRIVER;
  return result == LVC_CUDA_NEWER_PTX ? LVC_OLD_DRIVER : lvc_status_of(result);
}

static int lvc_load_code(lvc_gpu *gpu, int capability) {
  if (capability < LVC_CAPABILITY) return LVC_OLD_GPU;
  for (int i = 0; i < LVC_IMAGES; i++) {
    int status = lvc_load_image(&gpu->modules[i], &lvc_image_table[i], capability);
    if (status) return status;
  }
  for (int i = 0; i < LVC_FUNCTIONS; i++) {
    const lvc_function *function = &lvc_functions[i];
    lvc_result result = lvc_cuda.cuModuleGetFunction(&gpu->functions[i], gpu->modules[function->image], function->name);
    if (result) return lvc_status_of(result);
  }
  return LVC_OK;
}

/* Find the GPU and its context; what runs on it needs the latter to be current. */
static int lvc_find_gpu(lvc_gpu *gpu, int *capability) {
  int count = 0, major = 0, minor = 0;
  lvc_result result = lvc_cuda.cuDeviceGetCount(&count);
  if (!result && !count) return LVC_NO_GPU;
  if (!result) result = lvc_cuda.cuDeviceGet(&gpu->device, 0);
  if (!result) result = lvc_cuda.cuDeviceGetAttribute(&major, LVC_CUDA_MAJOR, gpu->device);
  if (!result) result = lvc_cuda.cuDeviceGetAttribute(&minor, LVC_CUDA_MINOR, gpu->device);
  if (!result) result = lvc_cuda.cuDevicePrimaryCtxRetain(&gpu->context, gpu->device);
  *capability = 10 * major + minor;
  return lvc_status_of(result);
}

static void lvc_leave(void) {
  lvc_handle context;
  lvc_cuda.cuCtxPopCurrent_v2(&context);
}

static int lvc_walk(lvc_model *model, int32_t first, int32_t end) {
  lvc_address places[LVC_MOST_POINTERS];
  void *arguments[LVC_MOST_POINTERS];
  for (int i = 0; i < LVC_MOST_POINTERS; i++) arguments[i] = &places[i];
  for (int32_t i = lvc_first_launch[first]; i < lvc_first_launch[end]; i++) {
    const lvc_launch *launch = &lvc_launches[i];
    for (int32_t p = 0; p < launch->pointers; p++) {
      const lvc_pointer *pointer = &lvc_pointers[launch->pointer + p];
      places[p] = model->bases[pointer->base] + pointer->offset;
    }
    lvc_result result = lvc_cuda.cuLaunchKernel(model->gpu->functions[launch->function], launch->blocks, 1, 1,
                                                launch->threads, 1, 1, 0, model->stream, arguments, 0);
    if (result) return lvc_status_of(result);
  }
  return LVC_OK;
}

/* A graph of launches that could not be made is none: they are launched one by one then. */
static void lvc_record(lvc_model *model, lvc_graph *graph, int32_t first, int32_t end) {
  lvc_handle recorded = 0;
  model->cannot_record = 1;
  if (!lvc_cuda.has_graphs || lvc_cuda.cuStreamBeginCapture_v2(model->stream, LVC_CUDA_CAPTURE_OF_THREAD)) return;
  int status = lvc_walk(model, first, end);
  lvc_result result = lvc_cuda.cuStreamEndCapture(model->stream, &recorded);
  if (!status && !result) result = lvc_cuda.cuGraphInstantiateWithFlags(&graph->made, recorded, 0);
  if (recorded) lvc_cuda.cuGraphDestroy(recorded);
  if (status || result) graph->made = 0;
  else model->cannot_record = 0;
}

static void lvc_forget(lvc_graph *graph) {
  if (graph->made) lvc_cuda.cuGraphExecDestroy(graph->made);
  graph->made = 0;
}

/* All steps of a variant. Places that change with every call are not worth a graph. */
static int lvc_walk_variant(lvc_model *model, int32_t variant) {
  int32_t first = lvc_first_step(variant), end = first + lvc_variant[variant].steps;
  lvc_graph *graph = &model->graphs[variant];
  if (memcmp(graph->places, model->bases, (LVC_INPUTS + LVC_OUTPUTS) * sizeof(lvc_address))) {
    lvc_forget(graph);
    memcpy(graph->places, model->bases, (LVC_INPUTS + LVC_OUTPUTS) * sizeof(lvc_address));
    return lvc_walk(model, first, end);
  }
  if (!graph->made && !model->cannot_record) lvc_record(model, graph, first, end);
  if (!graph->made) return lvc_walk(model, first, end);
  return lvc_status_of(lvc_cuda.cuGraphLaunch(graph->made, model->stream));
}

/* Nothing of the caller's memory is touched any more once this returns, whatever happened. */
static int lvc_wait(lvc_model *model, int status) {
  lvc_result result = lvc_cuda.cuStreamSynchronize(model->stream);
  return status ? status : lvc_status_of(result);
}

static uint64_t lvc_placed(uint64_t bytes) { return (bytes + LVC_PLACE - 1) / LVC_PLACE * LVC_PLACE; }

/* An instance's own memory: tensors of a call, workspace, scratch. */
static int lvc_get_memory(lvc_model *model) {
  uint64_t bytes = 0, others = lvc_placed(LVC_WORKSPACE_BYTES) + lvc_placed(LVC_SCRATCH_BYTES);
  for (int i = 0; i < LVC_INPUTS + LVC_OUTPUTS; i++) bytes += lvc_placed(lvc_staged(i));
  lvc_result result = lvc_cuda.cuMemAlloc_v2(&model->memory, bytes + others ? bytes + others : 1);
  if (result) return lvc_status_of(result);
  void *pinned = 0; /* there is little of it: without any the driver copies by way of its own */
  if (bytes && !lvc_cuda.cuMemAllocHost_v2(&pinned, bytes)) model->pinned = pinned;
  lvc_address at = model->memory;
  for (int i = 0; i < LVC_INPUTS + LVC_OUTPUTS; i++) {
    model->staging[i] = model->bases[i] = at;
    at += lvc_placed(lvc_staged(i));
  }
  model->bases[LVC_WORKSPACE] = at;
  model->bases[LVC_SCRATCH] = at + lvc_placed(LVC_WORKSPACE_BYTES);
  model->bases[LVC_WEIGHTS] = model->gpu->constants;
  model->bases[LVC_PREPARED] = model->gpu->constants + lvc_placed(LVC_WEIGHT_BYTES);
  return LVC_OK;
}

static int lvc_get_constants(lvc_gpu *gpu) {
  uint64_t bytes = lvc_placed(LVC_WEIGHT_BYTES) + lvc_placed(LVC_PREPARED_BYTES);
  return bytes ? lvc_status_of(lvc_cuda.cuMemAlloc_v2(&gpu->constants, bytes)) : LVC_OK;
}

static int lvc_set_up(lvc_model *model, const void *weights) {
  lvc_result result = 0;
  if (LVC_WEIGHT_BYTES)
    result = lvc_cuda.cuMemcpyHtoDAsync_v2(model->gpu->constants, weights, LVC_WEIGHT_BYTES, model->stream);
  int status = result ? lvc_status_of(result) : lvc_walk(model, LVC_STEPS, LVC_STEPS + LVC_SETUP_STEPS);
  return lvc_wait(model, status);
}

/* In the context of its GPU. */
static int lvc_fill(lvc_model *model, const void *weights, int capability) {
  int status = LVC_OK;
  if (model->is_first) status = lvc_load_code(model->gpu, capability);
  if (!status) status = lvc_status_of(lvc_cuda.cuStreamCreate(&model->stream, LVC_CUDA_NON_BLOCKING));
  if (!status && model->is_first) status = lvc_get_constants(model->gpu);
  if (!status) status = lvc_get_memory(model);
  if (!status && model->is_first) status = lvc_set_up(model, weights);
  return status;
}

int lvc_model_create(const void *weights, int32_t threads, const lvc_model *shared, lvc_model **made) {
  *made = 0;
  if (threads < 1) return LVC_NO_SUCH_THREADS;
  if (shared && shared->process != getpid()) return LVC_FORKED;
  int capability = 0, status = lvc_open_driver();
  if (status) return status;
  lvc_model *model = calloc(1, sizeof(*model));
  lvc_gpu *gpu = shared ? shared->gpu : calloc(1, sizeof(*gpu));
  if (!model || !gpu) {
    free(model);
    if (!shared) free(gpu);
    return LVC_OUT_OF_MEMORY;
  }
  *model = (lvc_model){.gpu = gpu, .is_first = !shared, .process = getpid()};
  if (!shared) status = lvc_find_gpu(gpu, &capability);
  if (!status) status = lvc_status_of(lvc_cuda.cuCtxPushCurrent_v2(gpu->context));
  if (!status) {
    status = lvc_fill(model, weights, capability);
    lvc_leave();
  }
  if (status) lvc_model_destroy(model);
  else *made = model;
  return status;
}

static void lvc_give_back(lvc_model *model) {
  lvc_gpu *gpu = model->gpu;
  for (int i = 0; i < LVC_VARIANTS; i++) lvc_forget(&model->graphs[i]);
  if (model->stream) lvc_cuda.cuStreamDestroy_v2(model->stream);
  if (model->pinned) lvc_cuda.cuMemFreeHost(model->pinned);
  if (model->memory) lvc_cuda.cuMemFree_v2(model->memory);
  if (!model->is_first) return;
  if (gpu->constants) lvc_cuda.cuMemFree_v2(gpu->constants);
  for (int i = 0; i < LVC_IMAGES; i++)
    if (gpu->modules[i]) lvc_cuda.cuModuleUnload(gpu->modules[i]);
}

void lvc_model_destroy(lvc_model *model) {
  if (!model) return;
  lvc_gpu *gpu = model->gpu;
  if (gpu->context && model->process == getpid()) {
    if (!lvc_cuda.cuCtxPushCurrent_v2(gpu->context)) {
      lvc_give_back(model);
      lvc_leave();
    }
    if (model->is_first) lvc_cuda.cuDevicePrimaryCtxRelease_v2(gpu->device);
  }
  if (model->is_first) free(gpu);
  free(model);
}

/* What kind of memory an address is of; of memory that is not its own the driver knows nothing. */
static unsigned lvc_kind(lvc_address address) {
  unsigned kind = 0;
  return lvc_cuda.cuPointerGetAttribute(&kind, LVC_CUDA_MEMORY_TYPE, address) ? 0 : kind;
}

/* Whether an address is the GPU's own. */
static int lvc_is_there(lvc_address address) { return lvc_kind(address) == LVC_CUDA_ON_DEVICE; }

/* The pinned memory by way of which a tensor of the host goes; null if it goes by itself. */
static void *lvc_stopover(const lvc_model *model, int i, const void *given) {
  if (!model->pinned || lvc_kind((lvc_address)(uintptr_t)given) == LVC_CUDA_OF_HOST) return 0;
  return model->pinned + (model->staging[i] - model->memory);
}

/* What lies on the GPU at a good place is used there; the rest is staged. Returns whether anything lies there. */
static int lvc_place(lvc_model *model, const void *const *inputs, void *const *outputs) {
  int is_any = 0;
  for (int i = 0; i < LVC_INPUTS + LVC_OUTPUTS; i++) {
    const void *given = i < LVC_INPUTS ? inputs[i] : outputs[i - LVC_INPUTS];
    lvc_address address = (lvc_address)(uintptr_t)given;
    int is_there = lvc_is_there(address);
    is_any |= is_there;
    model->bases[i] = is_there && address % LVC_ALIGNMENT == 0 ? address : model->staging[i];
  }
  return is_any;
}

static lvc_result lvc_copy_input(lvc_model *model, int32_t variant, int i, const void *given) {
  uint64_t bytes = lvc_tensor_of(variant, i)->bytes;
  lvc_address address = (lvc_address)(uintptr_t)given;
  if (model->bases[i] == address || !bytes) return 0;
  if (lvc_is_there(address))
    return lvc_cuda.cuMemcpyDtoDAsync_v2(model->bases[i], address, bytes, model->stream);
  void *stopover = lvc_stopover(model, i, given);
  if (stopover) given = memcpy(stopover, given, bytes);
  return lvc_cuda.cuMemcpyHtoDAsync_v2(model->bases[i], given, bytes, model->stream);
}

static lvc_result lvc_copy_output(lvc_model *model, int32_t variant, int i, void *given) {
  uint64_t bytes = lvc_tensor_of(variant, LVC_INPUTS + i)->bytes;
  lvc_address address = (lvc_address)(uintptr_t)given, made = model->bases[LVC_INPUTS + i];
  if (made == address || !bytes) return 0;
  if (lvc_is_there(address)) return lvc_cuda.cuMemcpyDtoDAsync_v2(address, made, bytes, model->stream);
  void *stopover = lvc_stopover(model, LVC_INPUTS + i, given);
  return lvc_cuda.cuMemcpyDtoHAsync_v2(stopover ? stopover : given, made, bytes, model->stream);
}

/* What has come as far as pinned memory goes on to the caller's. */
static void lvc_hand_over(const lvc_model *model, int32_t variant, int i, void *given) {
  uint64_t bytes = lvc_tensor_of(variant, LVC_INPUTS + i)->bytes;
  lvc_address address = (lvc_address)(uintptr_t)given;
  if (model->bases[LVC_INPUTS + i] == address || !bytes || lvc_is_there(address)) return;
  void *stopover = lvc_stopover(model, LVC_INPUTS + i, given);
  if (stopover) memcpy(given, stopover, bytes);
}

/* Whoever made what lies on the GPU may have left it to a stream of his own, which is waited for. */
static int lvc_run_here(lvc_model *model, int32_t variant, const void *const *inputs, void *const *outputs) {
  lvc_result result = lvc_place(model, inputs, outputs) ? lvc_cuda.cuCtxSynchronize() : 0;
  for (int i = 0; i < LVC_INPUTS && !result; i++) result = lvc_copy_input(model, variant, i, inputs[i]);
  int status = result ? lvc_status_of(result) : lvc_walk_variant(model, variant);
  for (int i = 0; i < LVC_OUTPUTS && !status; i++) status = lvc_status_of(lvc_copy_output(model, variant, i, outputs[i]));
  status = lvc_wait(model, status);
  for (int i = 0; i < LVC_OUTPUTS && !status; i++) lvc_hand_over(model, variant, i, outputs[i]);
  return status;
}

static int lvc_enter(lvc_model *model) {
  if (model->process != getpid()) return LVC_FORKED;
  return lvc_status_of(lvc_cuda.cuCtxPushCurrent_v2(model->gpu->context));
}

int lvc_run(lvc_model *model, const void *const *inputs, void *const *outputs) {
  return lvc_run_variant(model, 0, inputs, outputs);
}

int lvc_run_variant(lvc_model *model, int32_t variant, const void *const *inputs, void *const *outputs) {
  if (variant < 0 || variant >= LVC_VARIANTS) return LVC_NO_SUCH_VARIANT;
  int status = lvc_enter(model);
  if (status) return status;
  status = lvc_run_here(model, variant, inputs, outputs);
  lvc_leave();
  return status;
}

int lvc_run_step(lvc_model *model, int32_t step, const void *const *inputs, void *const *outputs) {
  if (step < 0 || step >= lvc_variant->steps) return LVC_NO_SUCH_STEP;
  int status = lvc_enter(model);
  if (status) return status;
  lvc_place(model, inputs, outputs);
  status = lvc_wait(model, lvc_walk(model, step, step + 1));
  lvc_leave();
  return status;
}
