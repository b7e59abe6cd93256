/* A compiled model as plain C: what it takes and gives, and how it is run. Needs nothing but the C library.

   An instance serves one call at a time and allocates when it is created if at all, never in a run; there may be as many
   as memory allows, of one model and of several, each used by another thread. */
#ifndef LVC_H
#define LVC_H

#include <stdint.h>

#ifndef LVC_HEAP
#define LVC_HEAP 1 /* 0: nothing is allocated, instances lie where they are placed */
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lvc_model lvc_model;

typedef struct {
  const int64_t *shape;
  int32_t rank;
  uint8_t code, bits; /* as in DLPack: 0 signed, 1 unsigned, 2 floating point, 6 boolean */
  uint64_t bytes;
} lvc_tensor;

typedef struct {
  int32_t version; /* of this interface: LVC_VERSION of the header that the model was built with */
  int32_t inputs, outputs, steps;
  const lvc_tensor *input, *output;
  uint64_t weight_bytes;   /* of the weights that lvc_model_create is given */
  uint64_t instance_bytes; /* that an instance allocates, but for its threads and what it shares */
} lvc_info;

enum { LVC_VERSION = 1, LVC_ALIGNMENT = 64 };

enum {
  LVC_OK = 0,
  LVC_OUT_OF_MEMORY = 1,
  LVC_NO_THREADS = 2,
  LVC_UNALIGNED = 3,
  LVC_KERNEL_FAILED = 4,
  LVC_NO_SUCH_STEP = 5,
  LVC_NO_SUCH_THREADS = 6,
  LVC_NO_ROOM = 7,
  LVC_NO_SUCH_VARIANT = 14,
  /* of models for GPUs */
  LVC_NO_DRIVER = 8,
  LVC_NO_GPU = 9,
  LVC_OLD_GPU = 10,
  LVC_OLD_DRIVER = 11,
  LVC_OUT_OF_GPU_MEMORY = 12,
  LVC_FORKED = 13,
  LVC_DRIVER_FAILED = 1000 /* and above: by how much is the error that the driver reports */
};

const lvc_info *lvc_model_info(void);

/* A model may have been built for several shapes of its inputs: variants, from 0, of which every instance runs any. This
   is what one takes and gives, that of lvc_model_info for the first; 0 behind the last. */
const lvc_info *lvc_variant_info(int32_t variant);

/* The smallest variant that takes so many images at once, by the first dimension of its first input; the largest where
   none takes as many. Rows of inputs behind the images may hold any numbers, and those of outputs then mean nothing. */
int32_t lvc_variant_for(int64_t images);

/* One clear sentence for a status. */
const char *lvc_status_text(int status);

/* Make an instance that runs on so many threads, the caller's among them, so at least one. The weights begin at a
   multiple of LVC_ALIGNMENT and stay where they are, unchanged, as long as it lives. What is computed from them once is
   shared with another instance if one is given, which then has to live as long too. */
#if LVC_HEAP
int lvc_model_create(const void *weights, int32_t threads, const lvc_model *shared, lvc_model **made);
#endif

/* The same in so many bytes of memory, which begin at a multiple of LVC_ALIGNMENT and are the instance's own as long as
   it lives. Models for GPUs, which have memory of their own, lack these two. */
int lvc_model_place(void *memory, uint64_t bytes, const void *weights, int32_t threads, const lvc_model *shared,
                    lvc_model **made);

/* The bytes that it takes. */
uint64_t lvc_model_bytes(int32_t threads, const lvc_model *shared);

/* Inputs and outputs in the order of the signature, contiguous, no output where an input or another output lies; those
   that begin at a multiple of LVC_ALIGNMENT are read and written where they lie, others are copied. For a model on a GPU
   that is so of memory of the GPU, and all memory of the host is copied. */
int lvc_run(lvc_model *model, const void *const *inputs, void *const *outputs);

/* The same with inputs and outputs of a variant; lvc_run runs the first. */
int lvc_run_variant(lvc_model *model, int32_t variant, const void *const *inputs, void *const *outputs);

/* Run one step alone, to time it: it reads what the last run left, on a GPU also of its copied inputs. */
int lvc_run_step(lvc_model *model, int32_t step, const void *const *inputs, void *const *outputs);

/* End its threads, and free what it allocated. */
void lvc_model_destroy(lvc_model *model);

#ifdef __cplusplus
}
#endif
#endif
