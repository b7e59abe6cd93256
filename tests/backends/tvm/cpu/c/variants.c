/* Runs the variants of `net` for 1 and for 5 images, in one instance: variants INPUT OUTPUT, of 6 images each. */
#include "net.h"

#include <stdio.h>
#include <string.h>

static _Alignas(NET_ALIGNMENT) unsigned char memory[NET_MODEL_BYTES(1)];
static unsigned char input[NET_INPUT_0_BYTES + NET_VARIANT_1_INPUT_0_BYTES + 1];
static unsigned char output[NET_OUTPUT_0_BYTES + NET_VARIANT_1_OUTPUT_0_BYTES];

static int check(int condition, const char *what) {
  if (!condition) fprintf(stderr, "failed: %s\n", what);
  return !condition;
}

int main(int count, char **arguments) {
  const int64_t images[] = {1, 2, 5, 6, 100};
  const int32_t wanted[] = {0, 1, 1, 1, 1};
  const int64_t shape[] = NET_VARIANT_1_INPUT_0_SHAPE;
  int failed = check(count == 3, "arguments");
  for (int i = 0; i < 5; i++) failed += check(net_variant_for(images[i]) == wanted[i], "the variant for a number");
  const net_info *info = net_variant_info(1);
  failed += check(net_variant_info(0) == net_model_info(), "the first");
  failed += check(info && info->input[0].bytes == NET_VARIANT_1_INPUT_0_BYTES, "the second");
  failed += check(info && !memcmp(info->input[0].shape, shape, sizeof shape), "its shape");
  failed += check(!net_variant_info(2) && !net_variant_info(-1), "no other");

  net_model *model;
  FILE *file = fopen(arguments[1], "rb");
  size_t bytes = sizeof input - 1;
  failed += check(file && fread(input + 1, 1, bytes, file) == bytes && !fclose(file), "read");
  if (check(!net_model_place(memory, sizeof memory, net_weights, 1, 0, &model), "place")) return 1;
  for (int round = 0; round < 2; round++) {
    const void *one[] = {input + 1}, *five[] = {input + 1 + NET_INPUT_0_BYTES};
    void *first[] = {output}, *others[] = {output + NET_OUTPUT_0_BYTES};
    failed += check(!net_run(model, one, first), "run");
    failed += check(!net_run_variant(model, 1, five, others), "run five");
    failed += check(net_run_variant(model, 2, five, others) == NET_NO_SUCH_VARIANT, "a variant that is not there");
    failed += check(net_run_variant(model, -1, five, others) == NET_NO_SUCH_VARIANT, "a negative one");
  }
  net_model_destroy(model);
  file = fopen(arguments[2], "wb");
  failed += check(file && fwrite(output, 1, sizeof output, file) == sizeof output && !fclose(file), "write");
  return failed != 0;
}
