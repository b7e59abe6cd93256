/* Sentences for what a model returns. */
#ifdef LVC_CAPABILITY
static const char *lvc_gpu_text(int status);
#else
static const char *lvc_gpu_text(int status) { return (void)status, "this is no status of a model"; }
#endif

const char *lvc_status_text(int status) {
  switch (status) {
  case LVC_OK: return "it is done";
  case LVC_OUT_OF_MEMORY: return "there is not enough memory for the model";
  case LVC_NO_THREADS: return "the system starts no more threads";
  case LVC_UNALIGNED: return "weights or memory do not begin at a multiple of 64 bytes";
  case LVC_KERNEL_FAILED: return "a kernel failed";
  case LVC_NO_SUCH_STEP: return "the model has no such step";
  case LVC_NO_SUCH_THREADS: return "a model runs on at least one thread";
  case LVC_NO_ROOM: return "the memory is smaller than the model takes";
  case LVC_NO_SUCH_VARIANT: return "the model has no such variant";
  default: return lvc_gpu_text(status);
  }
}
