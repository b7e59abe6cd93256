// What the scores of a classifier say.
#ifndef LVC_CLASSES_HPP
#define LVC_CLASSES_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "span.hpp"

namespace lvc {

/// Scores as probabilities: unchanged if none is below 0 and they sum to 1, else by softmax.
inline std::vector<double> probabilities(span<const float> scores) {
  std::vector<double> made(scores.begin(), scores.end());
  if (made.empty()) return made;
  double sum = 0, highest = *std::max_element(made.begin(), made.end());
  for (double score : made) sum += score;
  bool has_negative = *std::min_element(made.begin(), made.end()) < 0;
  if (!has_negative && std::fabs(sum - 1) <= 1e-3) return made;
  sum = 0;
  for (double &score : made) sum += score = std::exp(score - highest);
  for (double &score : made) score /= sum;
  return made;
}

/// The classes of the highest scores, best first, the lower class first among equals, NaN last.
inline std::vector<std::size_t> best_classes(span<const float> scores, std::size_t most) {
  std::vector<std::size_t> made(scores.size());
  for (std::size_t i = 0; i < made.size(); i++) made[i] = i;
  auto is_better = [&](std::size_t one, std::size_t other) {
    return scores[one] > scores[other] || (std::isnan(scores[other]) && !std::isnan(scores[one]));
  };
  std::stable_sort(made.begin(), made.end(), is_better);
  made.resize(std::min(most, made.size()));
  return made;
}

}  // namespace lvc
#endif
