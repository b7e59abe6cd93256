/* Instances of a model: their memory, and the walk over the steps. Behind the tables that describe the model. */
#include <string.h>
#if LVC_HEAP
#include <stdlib.h>
#ifdef __linux__
#include <sys/mman.h>
#endif
#endif

struct lvc_model {
  char *bases[LVC_BASES]; /* inputs, outputs, weights, prepared, workspace */
  char *staging[LVC_INPUTS + LVC_OUTPUTS + 1];
  char *allocated;
  lvc_scratch scratch;
#if LVC_THREADS
  lvc_pool pool;
#endif
  int32_t threads;
};

_Static_assert(sizeof(lvc_model) <= LVC_INSTANCE_BYTES, "an instance has less room than it takes");
#if LVC_THREADS
_Static_assert(sizeof(lvc_worker) <= LVC_WORKER_BYTES, "a thread has less room than it takes");
#endif

static int lvc_walk(lvc_model *model, int32_t first, int32_t end) {
  int failed = 0;
  lvc_own_scratch = &model->scratch;
#if LVC_THREADS
  lvc_own_pool = model->threads > 1 ? &model->pool : 0;
#endif
  for (int32_t step = first; step < end && !failed; step++) {
    model->scratch.used = 0;
    failed = lvc_call(step, model->bases);
  }
  lvc_own_pool = 0;
  lvc_own_scratch = 0;
  return failed ? LVC_KERNEL_FAILED : LVC_OK;
}

static int32_t lvc_usable(int32_t threads) { return LVC_THREADS ? threads : 1; }

uint64_t lvc_model_bytes(int32_t threads, const lvc_model *shared) {
  return LVC_MODEL_BYTES(lvc_usable(threads)) - (shared ? LVC_PREPARED_BYTES : 0);
}

int lvc_model_place(void *memory, uint64_t bytes, const void *weights, int32_t threads, const lvc_model *shared,
                    lvc_model **made) {
  *made = 0;
  if (threads < 1) return LVC_NO_SUCH_THREADS;
  if (((uintptr_t)weights | (uintptr_t)memory) % LVC_ALIGNMENT) return LVC_UNALIGNED;
  if (!memory || bytes < lvc_model_bytes(threads, shared)) return LVC_NO_ROOM;
  threads = lvc_usable(threads);
  char *at = memory; /* large tensors first, at the beginning of pages */
  char *workspace = at;
  at += LVC_WORKSPACE_BYTES;
  char *prepared = shared ? shared->bases[LVC_PREPARED] : at;
  if (!shared) at += LVC_PREPARED_BYTES;
  char *scratch = at;
  at += (uint64_t)threads * LVC_SCRATCH_BYTES;
  char *staging = at;
  at += LVC_STAGED_BYTES;
  lvc_model *model = (lvc_model *)at;
  at += LVC_INSTANCE_BYTES;
  memset(model, 0, sizeof(*model));
  model->threads = threads;
  model->bases[LVC_WORKSPACE] = workspace;
  model->bases[LVC_PREPARED] = prepared;
  model->bases[LVC_WEIGHTS] = (char *)(uintptr_t)weights;
  model->scratch = (lvc_scratch){scratch, 0, LVC_SCRATCH_BYTES};
  for (int i = 0; i < LVC_INPUTS + LVC_OUTPUTS; i++) {
    model->staging[i] = staging;
    staging += lvc_staged(i);
  }
  int status = LVC_OK;
#if LVC_THREADS
  if (threads > 1)
    status = lvc_pool_open(&model->pool, threads, (lvc_worker *)at, scratch + LVC_SCRATCH_BYTES, LVC_SCRATCH_BYTES);
  if (status) return status;
#endif
  if (!shared) status = lvc_walk(model, LVC_STEPS, LVC_STEPS + LVC_SETUP_STEPS);
  if (status) lvc_model_destroy(model);
  else *made = model;
  return status;
}

#if LVC_HEAP
enum { LVC_HUGE = 2 << 20 }; /* bytes of a large page */

/* aligned to large pages where they are many, which the system is asked for */
static char *lvc_get(uint64_t bytes) {
  uint64_t page = bytes >= 2 * LVC_HUGE ? LVC_HUGE : LVC_ALIGNMENT;
  char *block = aligned_alloc(page, (bytes + page - 1) / page * page);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (block && page == LVC_HUGE) madvise(block, (bytes + page - 1) / page * page, MADV_HUGEPAGE);
#endif
  return block;
}

int lvc_model_create(const void *weights, int32_t threads, const lvc_model *shared, lvc_model **made) {
  *made = 0;
  if (threads < 1) return LVC_NO_SUCH_THREADS;
  uint64_t bytes = lvc_model_bytes(threads, shared);
  char *block = lvc_get(bytes);
  if (!block) return LVC_OUT_OF_MEMORY;
  int status = lvc_model_place(block, bytes, weights, threads, shared, made);
  if (status) free(block);
  else (*made)->allocated = block;
  return status;
}
#endif

void lvc_model_destroy(lvc_model *model) {
  if (!model) return;
#if LVC_THREADS
  if (model->threads > 1) lvc_pool_close(&model->pool);
#endif
#if LVC_HEAP
  free(model->allocated);
#endif
}

static int lvc_run_some(lvc_model *model, int32_t variant, const void *const *inputs, void *const *outputs,
                        int32_t first, int32_t end) {
  for (int i = 0; i < LVC_INPUTS; i++) {
    int is_placed = (uintptr_t)inputs[i] % LVC_ALIGNMENT == 0;
    model->bases[i] = is_placed ? (char *)(uintptr_t)inputs[i] : model->staging[i];
    if (!is_placed) memcpy(model->staging[i], inputs[i], lvc_tensor_of(variant, i)->bytes);
  }
  for (int i = 0; i < LVC_OUTPUTS; i++) {
    int is_placed = (uintptr_t)outputs[i] % LVC_ALIGNMENT == 0;
    model->bases[LVC_INPUTS + i] = is_placed ? outputs[i] : model->staging[LVC_INPUTS + i];
  }
  int status = lvc_walk(model, first, end);
  for (int i = 0; i < LVC_OUTPUTS && !status; i++)
    if (model->bases[LVC_INPUTS + i] != outputs[i])
      memcpy(outputs[i], model->staging[LVC_INPUTS + i], lvc_tensor_of(variant, LVC_INPUTS + i)->bytes);
  return status;
}

int lvc_run(lvc_model *model, const void *const *inputs, void *const *outputs) {
  return lvc_run_variant(model, 0, inputs, outputs);
}

int lvc_run_variant(lvc_model *model, int32_t variant, const void *const *inputs, void *const *outputs) {
  if (variant < 0 || variant >= LVC_VARIANTS) return LVC_NO_SUCH_VARIANT;
  int32_t first = lvc_first_step(variant);
  return lvc_run_some(model, variant, inputs, outputs, first, first + lvc_variant[variant].steps);
}

int lvc_run_step(lvc_model *model, int32_t step, const void *const *inputs, void *const *outputs) {
  if (step < 0 || step >= lvc_variant->steps) return LVC_NO_SUCH_STEP;
  return lvc_run_some(model, 0, inputs, outputs, step, step + 1);
}
