// Says what is to be seen on a picture, by the classifier that the program was built with: classify photo.ppm
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "lvc.hpp"
#include "lvc_models/model.hpp"
#include "ppm.hpp"

static void classify(const char *name) {
  lvc::model model = lvc::model::from_memory(lvc_models::model());
  if (model.task() != "classify") throw std::runtime_error("the model '" + model.name() + "' is no classifier");
  lvc::instance instance(model);

  ppm photo(name);
  std::vector<float> image(model.inputs()[0].elements), scores(model.outputs()[0].elements);
  lvc::prepare({photo.pixels.data(), photo.height, photo.width, photo.channels}, model, image);
  instance.run({image}, {scores});

  std::vector<double> shares = lvc::probabilities(scores);
  for (std::size_t found : lvc::best_classes(scores, 5)) {
    bool is_named = model.labels().size() == scores.size();
    std::printf("%6.2f %%  %4zu  %s\n", 100 * shares[found], found, is_named ? model.labels()[found].c_str() : "");
  }
}

int main(int count, char **arguments) {
  if (count != 2) return std::fprintf(stderr, "usage: %s photo.ppm\n", arguments[0]), 2;
  try {
    classify(arguments[1]);
  } catch (const std::exception &error) {
    return std::fprintf(stderr, "error: %s\n", error.what()), 1;
  }
}
