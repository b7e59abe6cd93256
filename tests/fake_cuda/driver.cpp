// A driver without a GPU: libcuda.so.1 as far as lvc's runtime uses it, over kernels that are compiled for the CPU.
//
// Work waits in its stream until someone waits for the stream, so that what is read too early is not there yet. Device
// memory can be touched by copies and kernels alone, and begins as NaN. What is used as the interface of the driver does
// not allow is noted as a fault: pointers that are in no allocation, handles that are none, contexts that are not
// current, launches beyond the limits, calls behind an error that ends a context, what is not given back. Graphs are
// lists of launches; while a stream records one, nothing else may be asked of it.
//
// The environment says what it is: LVC_FAKE_KERNELS, the library of kernels; LVC_FAKE_CAPABILITY, 80 by default;
// LVC_FAKE_DRIVER, 13000 by default; LVC_FAKE_GPUS, 1 by default; LVC_FAKE_MEMORY, in bytes; LVC_FAKE_FAIL, such as
// "cuMemAlloc_v2 2 2": its second call returns 2; LVC_FAKE_FAULTS, a file that gets the faults when the process ends.
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "../cuda_on_cpu/table.hpp"

namespace {

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_CONTEXT = 201,
       NO_BINARY = 209, NEWER_PTX = 222, INVALID_HANDLE = 400, NOT_FOUND = 500, LAUNCH_FAILED = 719 };

struct Module { std::string code; };
struct Function { const Kernel *kernel; Module *module; };
typedef std::vector<std::function<int()>> Work;
struct Stream { Work work; Work *recorded = nullptr; };
struct Graph { Work work; };

std::recursive_mutex lock;
std::string faults;
std::map<uintptr_t, size_t> memory;  // begin and bytes
std::set<Module *> modules;
std::set<Function *> functions;
std::set<Stream *> streams;
std::map<uintptr_t, size_t> pinned;
std::set<Graph *> graphs, instances;
std::map<std::string, int> calls;
std::map<std::string, const Kernel *> kernels;
std::map<std::string, long> launched;
int retained, failed;
bool is_ready;
char context;  // the only one, by its address
thread_local int current;

long setting(const char *name, long usual) {
  const char *text = getenv(name);
  return text ? atol(text) : usual;
}

int fault(int result, const char *form, ...) {
  char text[400];
  va_list values;
  va_start(values, form);
  vsnprintf(text, sizeof text, form, values);
  va_end(values);
  faults += std::string(text) + "\n";
  return result;
}

// What a call returns before it does anything; OK if it may go on.
int begin(const char *name) {
  std::istringstream wanted(getenv("LVC_FAKE_FAIL") ? getenv("LVC_FAKE_FAIL") : "");
  std::string which;
  int number = 0, result = 0;
  wanted >> which >> number >> result;
  if (++calls[name] == number && which == name) {
    if (result >= 700 && result <= LAUNCH_FAILED) failed = result;
    return result;
  }
  return OK;
}

int begin_on_gpu(const char *name) {
  if (!is_ready) return fault(NOT_INITIALIZED, "%s before cuInit", name);
  if (!retained || !current) return fault(INVALID_CONTEXT, "%s without a context", name);
  if (failed) return failed;
  return begin(name);
}

size_t page(size_t bytes) { return (bytes + 4095) / 4096 * 4096; }

// How long device code is, which says so itself: its tables and sections.
size_t bytes_of(const Elf64_Ehdr *code) {
  size_t end = code->e_shoff + (size_t)code->e_shnum * sizeof(Elf64_Shdr);
  end = std::max(end, code->e_phoff + (size_t)code->e_phnum * sizeof(Elf64_Phdr));
  auto sections = (const Elf64_Shdr *)((const char *)code + code->e_shoff);
  for (int i = 0; i < code->e_shnum; i++)
    if (sections[i].sh_type != SHT_NOBITS) end = std::max(end, (size_t)(sections[i].sh_offset + sections[i].sh_size));
  return end;
}

// Where an allocation ends in which an address lies; 0 if there is none.
uintptr_t end_of(uintptr_t address) {
  auto found = memory.upper_bound(address);
  if (found == memory.begin()) return 0;
  --found;
  return address < found->first + found->second ? found->first + found->second : 0;
}

bool is_allocated(uintptr_t address, size_t bytes) {
  uintptr_t end = end_of(address);
  return end && bytes <= end - address;
}

// Device memory while something of the device touches it.
struct Opened {
  Opened() { protect(PROT_READ | PROT_WRITE); }
  ~Opened() { protect(PROT_NONE); }
  static void protect(int how) {
    for (auto &one : memory) mprotect((void *)one.first, page(one.second), how);
  }
};

int run(const Kernel &kernel, std::vector<uintptr_t> pointers) {
  std::vector<Given> given(kernel.count);
  for (int i = 0; i < kernel.count; i++)
    given[i] = {(void *)pointers[i], kernel.parameters[i].elements, kernel.parameters[i].is_written};
  long long counts[4];
  const char *error = kernel.run(given.data(), counts);
  launched[kernel.name]++;
  if (!error) return OK;
  failed = LAUNCH_FAILED;
  return fault(LAUNCH_FAILED, "%s: %s", kernel.name, error);
}

// Whether it is a stream, and one that does not record.
bool is_idle(void *stream) { return streams.count((Stream *)stream) && !((Stream *)stream)->recorded; }

void check_end() {
  for (auto &one : memory) fault(0, "%zu bytes of memory are not freed", one.second);
  for (auto &one : pinned) fault(0, "%zu bytes of pinned memory are not freed", one.second);
  if (!graphs.empty()) fault(0, "%zu graphs are not destroyed", graphs.size());
  if (!instances.empty()) fault(0, "%zu instances of graphs are not destroyed", instances.size());
  if (!modules.empty()) fault(0, "%zu modules are not unloaded", modules.size());
  if (!streams.empty()) fault(0, "%zu streams are not destroyed", streams.size());
  if (retained) fault(0, "the context is not released");
}

struct AtExit {
  ~AtExit() {
    const char *name = getenv("LVC_FAKE_FAULTS");
    if (!name) return;
    check_end();
    if (FILE *file = fopen(name, "w")) fputs(faults.c_str(), file), fclose(file);
  }
} at_exit;

}  // namespace

#define CALL(name) \
  std::lock_guard<std::recursive_mutex> locked(lock); \
  if (int result = begin(name)) return result
#define CALL_ON_GPU(name) \
  std::lock_guard<std::recursive_mutex> locked(lock); \
  if (int result = begin_on_gpu(name)) return result

extern "C" {

// For the tests in one process: everything from the beginning, and what was wrong until now.
void lvc_fake_reset() {
  for (auto &one : memory) munmap((void *)one.first, page(one.second));
  for (auto &one : pinned) free((void *)one.first);
  pinned.clear(), graphs.clear(), instances.clear();
  memory.clear(), modules.clear(), functions.clear(), streams.clear(), calls.clear(), kernels.clear(), launched.clear();
  retained = failed = current = 0;
  is_ready = false;
  faults.clear();
}
const char *lvc_fake_faults() {
  check_end();
  return faults.c_str();
}
long lvc_fake_calls(const char *name) { return calls[name]; }
long lvc_fake_launches(const char *name) { return launched[name]; }

int cuInit(unsigned flags) {
  CALL("cuInit");
  if (flags) return fault(INVALID_VALUE, "cuInit with flags");
  if (!setting("LVC_FAKE_GPUS", 1)) return NO_DEVICE;
  const char *name = getenv("LVC_FAKE_KERNELS");
  void *library = name ? dlopen(name, RTLD_NOW | RTLD_LOCAL) : nullptr;
  if (name && !library) return fault(INVALID_VALUE, "%s", dlerror());
  if (library)
    for (auto kernel = (const Kernel *)dlsym(library, "lvc_kernels"); kernel && kernel->name; kernel++)
      kernels[kernel->name] = kernel;
  is_ready = true;
  return OK;
}

int cuDriverGetVersion(int *version) {
  CALL("cuDriverGetVersion");
  *version = (int)setting("LVC_FAKE_DRIVER", 13000);
  return OK;
}

int cuDeviceGetCount(int *count) {
  CALL("cuDeviceGetCount");
  *count = (int)setting("LVC_FAKE_GPUS", 1);
  return OK;
}

int cuDeviceGet(int *device, int number) {
  CALL("cuDeviceGet");
  *device = number;
  return number < setting("LVC_FAKE_GPUS", 1) ? OK : 101;
}

int cuDeviceGetName(char *text, int bytes, int) {
  CALL("cuDeviceGetName");
  const char *name = getenv("LVC_FAKE_NAME");
  snprintf(text, bytes, "%s", name ? name : "NVIDIA Fake");
  return OK;
}

int cuDeviceGetAttribute(int *value, int attribute, int) {
  CALL("cuDeviceGetAttribute");
  long capability = setting("LVC_FAKE_CAPABILITY", 80);
  *value = (int)(attribute == 75 ? capability / 10 : capability % 10);
  return attribute == 75 || attribute == 76 ? OK : INVALID_VALUE;
}

int cuDevicePrimaryCtxRetain(void **made, int) {
  CALL("cuDevicePrimaryCtxRetain");
  retained++;
  *made = &context;
  return OK;
}

int cuDevicePrimaryCtxRelease_v2(int) {
  CALL("cuDevicePrimaryCtxRelease_v2");
  return retained-- > 0 ? OK : fault(INVALID_CONTEXT, "a context is released that is not retained");
}

int cuCtxPushCurrent_v2(void *given) {
  CALL("cuCtxPushCurrent_v2");
  if (given != &context || !retained) return fault(INVALID_CONTEXT, "what is pushed is no context");
  current++;
  return OK;
}

int cuCtxPopCurrent_v2(void **popped) {
  CALL("cuCtxPopCurrent_v2");
  *popped = &context;
  return current-- > 0 ? OK : fault(INVALID_CONTEXT, "a context is popped that was not pushed");
}

int cuModuleLoadData(void **made, const void *image) {
  CALL_ON_GPU("cuModuleLoadData");
  auto elf = (const Elf64_Ehdr *)image;
  long capability = setting("LVC_FAKE_CAPABILITY", 80);
  std::string code;
  if (!memcmp(elf->e_ident, ELFMAG, SELFMAG)) {
    code.assign((const char *)image, bytes_of(elf));
    long its = elf->e_flags >> 8 & 0xff;
    if (its / 10 != capability / 10 || its > capability) return NO_BINARY;
    if (setting("LVC_FAKE_DRIVER", 13000) < 13000) return NO_BINARY;
    calls["loaded code"]++;
  } else {
    code = (const char *)image;
    size_t place = code.find(".target sm_");
    if (place == std::string::npos) return fault(200, "an image is neither code nor text");
    if (atol(code.c_str() + place + 11) > capability) return 218;
    if (setting("LVC_FAKE_DRIVER", 13000) < 13000) return NEWER_PTX;
    calls["loaded text"]++;
  }
  Module *module = new Module{code};
  modules.insert(module);
  *made = module;
  return OK;
}

int cuModuleUnload(void *module) {
  CALL_ON_GPU("cuModuleUnload");
  return modules.erase((Module *)module) ? OK : fault(INVALID_HANDLE, "what is unloaded is no module");
}

int cuModuleGetFunction(void **made, void *module, const char *name) {
  CALL_ON_GPU("cuModuleGetFunction");
  if (!modules.count((Module *)module)) return fault(INVALID_HANDLE, "a function of no module");
  bool has_name = ((Module *)module)->code.find(name) != std::string::npos;
  if (!has_name || !kernels.count(name)) return fault(NOT_FOUND, "there is no function %s", name);
  Function *function = new Function{kernels[name], (Module *)module};
  functions.insert(function);
  *made = function;
  return OK;
}

int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  CALL_ON_GPU("cuMemAlloc_v2");
  if (!bytes) return fault(INVALID_VALUE, "nothing is allocated");
  size_t taken = bytes;
  for (auto &one : memory) taken += one.second;
  if (taken > (size_t)setting("LVC_FAKE_MEMORY", 1l << 40)) return OUT_OF_MEMORY;
  void *made = mmap(nullptr, page(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (made == MAP_FAILED) return OUT_OF_MEMORY;
  memset(made, 0xff, bytes);
  mprotect(made, page(bytes), PROT_NONE);
  memory[(uintptr_t)made] = bytes;
  *address = (uintptr_t)made;
  return OK;
}

int cuMemFree_v2(uint64_t address) {
  CALL_ON_GPU("cuMemFree_v2");
  auto found = memory.find(address);
  if (found == memory.end()) return fault(INVALID_VALUE, "what is freed was not allocated");
  munmap((void *)address, page(found->second));
  memory.erase(found);
  return OK;
}

int cuPointerGetAttribute(void *value, int attribute, uint64_t address) {
  CALL_ON_GPU("cuPointerGetAttribute");
  if (attribute != 2) return fault(INVALID_VALUE, "an address is asked for attribute %d", attribute);
  auto host = pinned.upper_bound(address);
  bool is_pinned = host != pinned.begin() && address < std::prev(host)->first + std::prev(host)->second;
  if (!is_pinned && !end_of(address)) return INVALID_VALUE;
  *(unsigned *)value = is_pinned ? 1 : 2;
  return OK;
}

int cuMemAllocHost_v2(void **made, size_t bytes) {
  CALL_ON_GPU("cuMemAllocHost_v2");
  if (!bytes) return fault(INVALID_VALUE, "nothing is allocated");
  *made = malloc(bytes);
  memset(*made, 0xff, bytes);
  pinned[(uintptr_t)*made] = bytes;
  return OK;
}

int cuMemFreeHost(void *given) {
  CALL_ON_GPU("cuMemFreeHost");
  if (!pinned.erase((uintptr_t)given)) return fault(INVALID_VALUE, "what is freed is no pinned memory");
  free(given);
  return OK;
}

int cuStreamBeginCapture_v2(void *given, int mode) {
  CALL_ON_GPU("cuStreamBeginCapture_v2");
  if (!is_idle(given) || mode < 0 || mode > 2) return fault(INVALID_HANDLE, "what records is no idle stream");
  ((Stream *)given)->recorded = new Work;
  return OK;
}

int cuStreamEndCapture(void *given, void **made) {
  std::lock_guard<std::recursive_mutex> held(lock);
  Stream *stream = (Stream *)given;
  if (!streams.count(stream) || !stream->recorded) return fault(INVALID_HANDLE, "nothing is recorded");
  std::unique_ptr<Work> recorded(stream->recorded);
  stream->recorded = nullptr;  // whether it can be made a graph or not
  CALL_ON_GPU("cuStreamEndCapture");
  Graph *graph = new Graph{*recorded};
  graphs.insert(graph);
  *made = graph;
  return OK;
}

int cuGraphInstantiateWithFlags(void **made, void *given, unsigned long long flags) {
  CALL_ON_GPU("cuGraphInstantiateWithFlags");
  if (!graphs.count((Graph *)given) || flags) return fault(INVALID_HANDLE, "what is instantiated is no graph");
  Graph *instance = new Graph(*(Graph *)given);
  instances.insert(instance);
  *made = instance;
  return OK;
}

int cuGraphDestroy(void *given) {
  CALL_ON_GPU("cuGraphDestroy");
  if (!graphs.erase((Graph *)given)) return fault(INVALID_HANDLE, "what is destroyed is no graph");
  delete (Graph *)given;
  return OK;
}

int cuGraphExecDestroy(void *given) {
  CALL_ON_GPU("cuGraphExecDestroy");
  if (!instances.erase((Graph *)given)) return fault(INVALID_HANDLE, "what is destroyed is no instance of a graph");
  delete (Graph *)given;
  return OK;
}

int cuGraphLaunch(void *given, void *stream) {
  CALL_ON_GPU("cuGraphLaunch");
  if (!instances.count((Graph *)given)) return fault(INVALID_HANDLE, "what is launched is no instance of a graph");
  if (!is_idle(stream)) return fault(INVALID_HANDLE, "a graph in no stream");
  for (auto &one : ((Graph *)given)->work) ((Stream *)stream)->work.push_back(one);
  return OK;
}

int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
  CALL_ON_GPU("cuMemcpyDtoDAsync_v2");
  if (!is_idle(stream)) return fault(INVALID_HANDLE, "a copy in no stream");
  if (!is_allocated(from, bytes) || !is_allocated(to, bytes))
    return fault(INVALID_VALUE, "%zu bytes are copied on the device where no memory is", bytes);
  ((Stream *)stream)->work.push_back([=] { return memcpy((void *)to, (void *)from, bytes), OK; });
  return OK;
}

int cuStreamCreate(void **made, unsigned flags) {
  CALL_ON_GPU("cuStreamCreate");
  if (flags > 1) return fault(INVALID_VALUE, "a stream with flags %u", flags);
  Stream *stream = new Stream;
  streams.insert(stream);
  *made = stream;
  return OK;
}

int cuStreamDestroy_v2(void *given) {
  CALL_ON_GPU("cuStreamDestroy_v2");
  Stream *stream = (Stream *)given;
  if (!streams.erase(stream)) return fault(INVALID_HANDLE, "what is destroyed is no stream");
  if (!stream->work.empty()) fault(0, "a stream is destroyed that has work");
  delete stream;
  return OK;
}

int cuStreamSynchronize(void *given) {
  CALL_ON_GPU("cuStreamSynchronize");
  if (!is_idle(given)) return fault(INVALID_HANDLE, "what is waited for is no stream");
  Work work;
  work.swap(((Stream *)given)->work);
  Opened opened;
  for (auto &one : work)
    if (int result = one()) return result;
  return OK;
}

int cuCtxSynchronize() {
  CALL_ON_GPU("cuCtxSynchronize");
  for (Stream *stream : std::set<Stream *>(streams))
    if (int result = cuStreamSynchronize(stream)) return result;
  return OK;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
  CALL_ON_GPU("cuMemcpyHtoDAsync_v2");
  if (!is_idle(stream)) return fault(INVALID_HANDLE, "a copy in no stream");
  if (!is_allocated(to, bytes)) return fault(INVALID_VALUE, "%zu bytes are copied to where no memory is", bytes);
  if (end_of((uintptr_t)from)) return fault(INVALID_VALUE, "what is copied from the host lies on the device");
  ((Stream *)stream)->work.push_back([=] { return memcpy((void *)to, from, bytes), OK; });
  return OK;
}

int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
  CALL_ON_GPU("cuMemcpyDtoHAsync_v2");
  if (!is_idle(stream)) return fault(INVALID_HANDLE, "a copy in no stream");
  if (!is_allocated(from, bytes)) return fault(INVALID_VALUE, "%zu bytes are copied from where no memory is", bytes);
  if (end_of((uintptr_t)to)) return fault(INVALID_VALUE, "what is copied to the host lies on the device");
  ((Stream *)stream)->work.push_back([=] { return memcpy(to, (void *)from, bytes), OK; });
  return OK;
}

int cuLaunchKernel(void *given, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
                   unsigned threads_z, unsigned shared, void *stream, void **arguments, void **extra) {
  CALL_ON_GPU("cuLaunchKernel");
  Function *function = (Function *)given;
  if (!functions.count(function) || !modules.count(function->module))
    return fault(INVALID_HANDLE, "what is launched is no function");
  const Kernel &kernel = *function->kernel;
  if (!streams.count((Stream *)stream)) return fault(INVALID_HANDLE, "%s in no stream", kernel.name);
  if (y != 1 || z != 1 || threads_y != 1 || threads_z != 1 || shared || extra || !x || !threads || threads > 1024)
    return fault(INVALID_VALUE, "%s is launched beyond the limits", kernel.name);
  if ((int)x != kernel.blocks || (int)threads != kernel.threads)
    return fault(INVALID_VALUE, "%s is launched in %u blocks of %u threads", kernel.name, x, threads);
  std::vector<uintptr_t> pointers;
  for (int i = 0; i < kernel.count; i++) {
    uint64_t pointer = *(const uint64_t *)arguments[i];
    size_t bytes = kernel.parameters[i].elements * kernel.parameters[i].item;
    if (!is_allocated(pointer, bytes))
      return fault(INVALID_VALUE, "%s, argument %d: %zu bytes are not all in one allocation", kernel.name, i, bytes);
    pointers.push_back(pointer);
  }
  Stream *to = (Stream *)stream;
  (to->recorded ? *to->recorded : to->work).push_back([&kernel, pointers] { return run(kernel, pointers); });
  return OK;
}

int cuGetErrorName(int result, const char **text) {
  static const std::map<int, const char *> names = {
      {1, "CUDA_ERROR_INVALID_VALUE"}, {2, "CUDA_ERROR_OUT_OF_MEMORY"}, {719, "CUDA_ERROR_LAUNCH_FAILED"}};
  auto found = names.find(result);
  *text = found == names.end() ? nullptr : found->second;
  return found == names.end() ? INVALID_VALUE : OK;
}

int cuGetErrorString(int result, const char **text) {
  *text = result == 719 ? "unspecified launch failure" : result == 2 ? "out of memory" : nullptr;
  return *text ? OK : INVALID_VALUE;
}
}
