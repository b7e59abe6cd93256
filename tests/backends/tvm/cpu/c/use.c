/* Runs the model `net` in memory of its own, and checks what misuse says: use INPUT OUTPUT, the weights beside it where
   they are MAPPED, on THREADS threads. */
#include "net.h"

#include <stdio.h>
#include <string.h>

#ifndef THREADS
#define THREADS 1
#endif

static _Alignas(NET_ALIGNMENT) unsigned char memory[NET_MODEL_BYTES(THREADS)], other[NET_MODEL_BYTES(THREADS)];
static _Alignas(NET_ALIGNMENT) unsigned char input[NET_INPUT_0_BYTES + 1], output[NET_OUTPUT_0_BYTES];
static _Alignas(NET_ALIGNMENT) unsigned char again[NET_OUTPUT_0_BYTES + 1];

#ifdef MAPPED
#include <fcntl.h>
#include <sys/mman.h>
static const unsigned char *map(void) {
  int file = open("net_weights.bin", O_RDONLY);
  return file < 0 ? 0 : mmap(0, NET_WEIGHT_BYTES, PROT_READ, MAP_PRIVATE, file, 0);
}
#else
static const unsigned char *map(void) { return net_weights; }
#endif

static int check(int condition, const char *what) {
  if (!condition) fprintf(stderr, "failed: %s\n", what);
  return !condition;
}

static int misused(const unsigned char *weights) {
  net_model *model = 0;
  int failed = check(net_model_bytes(THREADS, 0) <= sizeof memory, "bytes");
  failed += check(net_model_place(memory, 64, weights, THREADS, 0, &model) == NET_NO_ROOM && !model, "room");
  failed += check(net_model_place(0, sizeof memory, weights, THREADS, 0, &model) == NET_NO_ROOM, "no memory");
  failed += check(net_model_place(memory + 4, sizeof memory - 4, weights, 1, 0, &model) == NET_UNALIGNED, "memory");
  failed += check(net_model_place(memory, sizeof memory, weights + 4, 1, 0, &model) == NET_UNALIGNED, "weights");
  failed += check(net_model_place(memory, sizeof memory, weights, 0, 0, &model) == NET_NO_SUCH_THREADS, "threads");
  failed += check(strlen(net_status_text(NET_NO_ROOM)) > 10, "text");
  const net_info *info = net_model_info();
  failed += check(info->weight_bytes == NET_WEIGHT_BYTES && info->inputs == 1, "info");
  failed += check(info->input[0].bytes == NET_INPUT_0_BYTES && info->output[0].bytes == NET_OUTPUT_0_BYTES, "sizes");
  return failed;
}

int main(int count, char **arguments) {
  const unsigned char *weights = map();
  if (count != 3 || check(weights != 0, "weights") || misused(weights)) return 1;
  FILE *file = fopen(arguments[1], "rb");
  if (!file || fread(input, 1, NET_INPUT_0_BYTES, file) != NET_INPUT_0_BYTES || fclose(file)) return 1;

  net_model *model, *shares;
  int status = net_model_place(memory, sizeof memory, weights, THREADS, 0, &model);
  if (status) return fprintf(stderr, "failed: %s\n", net_status_text(status)), 1;
  const void *inputs[] = {input};
  void *outputs[] = {output};
  for (int i = 0; i < 3 && !status; i++) status = net_run(model, inputs, outputs);
  int failed = check(!status, "run");

  failed += check(!net_model_place(other, net_model_bytes(THREADS, model), weights, THREADS, model, &shares), "share");
  memmove(input + 1, input, NET_INPUT_0_BYTES);
  inputs[0] = input + 1;
  outputs[0] = again + 1;
  failed += check(!net_run(shares, inputs, outputs), "unaligned");
  failed += check(!memcmp(again + 1, output, NET_OUTPUT_0_BYTES), "the same again");
  net_model_destroy(shares);
  net_model_destroy(model);

  file = fopen(arguments[2], "wb");
  failed += check(file && fwrite(output, 1, NET_OUTPUT_0_BYTES, file) == NET_OUTPUT_0_BYTES && !fclose(file), "write");
  return failed != 0;
}
