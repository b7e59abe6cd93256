/* Says what is to be seen on a picture, by the classifier that the program was built with, without heap:

   classify photo.ppm     a picture of the size that the model takes
   classify numbers.f32   the numbers of its input */
#include <math.h>
#include <stdio.h>

#include "classifier.h"
#if __has_include("classifier_labels.h")
#include "classifier_labels.h"
#define LABEL(place) classifier_labels[place]
#else
#define LABEL(place) ""
#endif

enum { NUMBERS = CLASSIFIER_INPUT_0_BYTES / sizeof(float), CLASSES = CLASSIFIER_OUTPUT_0_BYTES / sizeof(float) };

static _Alignas(CLASSIFIER_ALIGNMENT) unsigned char memory[CLASSIFIER_MODEL_BYTES(1)];
static _Alignas(CLASSIFIER_ALIGNMENT) float image[NUMBERS], scores[CLASSES];

#ifdef CLASSIFIER_PIXEL_DIVISOR
static const int shape[] = CLASSIFIER_INPUT_0_SHAPE; /* 1, channels, height, width */
static unsigned char pixels[NUMBERS];

static const char *read_picture(FILE *file, int colours) {
  const int order[] = CLASSIFIER_CHANNELS, channels = sizeof order / sizeof *order;
  const float mean[] = CLASSIFIER_MEAN, deviation[] = CLASSIFIER_STD;
  int width, height, most;
  if (sizeof shape / sizeof *shape != 4 || shape[1] != channels) return "the model takes no pictures";
  if (colours != channels) return "the picture has another number of channels than the model takes";
  if (fscanf(file, "%d%d%d", &width, &height, &most) != 3 || most != 255 || fgetc(file) == EOF) return "it is no PPM";
  if (width != shape[3] || height != shape[2]) return "the picture has another size than the model takes";
  if (fread(pixels, 1, NUMBERS, file) != NUMBERS) return "the picture is cut off";
  int places = width * height;
  for (int c = 0; c < channels; c++)
    for (int i = 0; i < places; i++) {
      float number = pixels[i * channels + order[c]] / CLASSIFIER_PIXEL_DIVISOR - CLASSIFIER_PIXEL_SHIFT;
      image[c * places + i] = (number - mean[c]) / deviation[c];
    }
  return 0;
}
#else
static const char *read_picture(FILE *file, int colours) {
  (void)file, (void)colours;
  return "the model does not say how pictures become its input";
}
#endif

static const char *read_input(const char *name) {
  FILE *file = fopen(name, "rb");
  if (!file) return "it cannot be read";
  int first = fgetc(file), second = fgetc(file);
  const char *problem = 0;
  if (first == 'P' && (second == '5' || second == '6')) problem = read_picture(file, second == '6' ? 3 : 1);
  else if (fseek(file, 0, SEEK_SET) || fread(image, sizeof(float), NUMBERS, file) != NUMBERS || fgetc(file) != EOF)
    problem = "it holds neither a picture nor the numbers of the input";
  fclose(file);
  return problem;
}

static void print_best(int most) {
  double sum = 0, highest = scores[0];
  for (int i = 1; i < CLASSES; i++) highest = scores[i] > highest ? scores[i] : highest;
  for (int i = 0; i < CLASSES; i++) sum += exp(scores[i] - highest);
  for (int rank = 0; rank < most && rank < CLASSES; rank++) {
    int best = 0;
    for (int i = 1; i < CLASSES; i++) best = scores[i] > scores[best] ? i : best;
    printf("%6.2f %%  %4d  %s\n", 100 * exp(scores[best] - highest) / sum, best, LABEL(best));
    scores[best] = -INFINITY;
  }
}

int main(int count, char **arguments) {
  if (count != 2) return fprintf(stderr, "usage: %s photo.ppm\n", arguments[0]), 2;
  const char *problem = read_input(arguments[1]);
  if (problem) return fprintf(stderr, "error: %s: %s\n", arguments[1], problem), 1;

  classifier_model *model;
  const void *inputs[] = {image};
  void *outputs[] = {scores};
  int status = classifier_model_place(memory, sizeof memory, classifier_weights, 1, 0, &model);
  if (!status) status = classifier_run(model, inputs, outputs);
  if (status) return fprintf(stderr, "error: %s\n", classifier_status_text(status)), 1;
  print_best(5);
  classifier_model_destroy(model);
}
