/* Runs a model for another process: reads the number of a variant in 32 bits and the inputs of a call from standard
   input, one behind the other, and writes a status of 32 bits and the outputs to standard output, until there is no more
   input.

   serve WEIGHTS THREADS */
#include "lvc.h"
#include <stdio.h>
#include <stdlib.h>

static void *get(uint64_t bytes) {
  void *block = aligned_alloc(LVC_ALIGNMENT, (bytes + LVC_ALIGNMENT) / LVC_ALIGNMENT * LVC_ALIGNMENT);
  if (!block) exit(LVC_OUT_OF_MEMORY);
  return block;
}

static uint64_t most(int32_t is_output, int32_t i) {
  uint64_t bytes = 0;
  const lvc_info *info;
  for (int32_t variant = 0; (info = lvc_variant_info(variant)); variant++) {
    uint64_t found = (is_output ? info->output : info->input)[i].bytes;
    if (found > bytes) bytes = found;
  }
  return bytes;
}

static void **buffers(int32_t is_output, int32_t count) {
  void **found = get(((uint64_t)count + 1) * sizeof(void *));
  for (int32_t i = 0; i < count; i++) found[i] = get(most(is_output, i));
  return found;
}

static void put(const void *from, uint64_t bytes) {
  if (fwrite(from, 1, bytes, stdout) != bytes) exit(1);
}

int main(int count, char **arguments) {
  const lvc_info *info = lvc_model_info();
  void *weights = get(info->weight_bytes), **inputs = buffers(0, info->inputs);
  void **outputs = buffers(1, info->outputs);
  FILE *file = count == 3 ? fopen(arguments[1], "rb") : 0;
  if (!file || fread(weights, 1, info->weight_bytes, file) != info->weight_bytes) return 1;
  fclose(file);
  lvc_model *model;
  int32_t status = lvc_model_create(weights, atoi(arguments[2]), 0, &model);
  for (int32_t variant; fread(&variant, sizeof(variant), 1, stdin) == 1;) {
    if (!(info = lvc_variant_info(variant))) return 1;
    for (int32_t i = 0; i < info->inputs; i++)
      if (fread(inputs[i], 1, info->input[i].bytes, stdin) != info->input[i].bytes) return 0;
    if (!status) status = lvc_run_variant(model, variant, (const void *const *)inputs, outputs);
    put(&status, sizeof(status));
    for (int32_t i = 0; i < info->outputs && !status; i++) put(outputs[i], info->output[i].bytes);
    if (fflush(stdout)) return 1;
  }
  return 0;
}
