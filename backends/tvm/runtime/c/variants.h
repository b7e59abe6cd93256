/* What a model takes and gives, for each of the shapes that it was built for. Behind the tables that describe it. */

static uint64_t lvc_rounded(uint64_t bytes) { return (bytes + LVC_ALIGNMENT - 1) / LVC_ALIGNMENT * LVC_ALIGNMENT; }

const lvc_info *lvc_model_info(void) { return lvc_variant; }

const lvc_info *lvc_variant_info(int32_t variant) {
  return variant >= 0 && variant < LVC_VARIANTS ? lvc_variant + variant : 0;
}

/* the images of a variant's first input */
static int64_t lvc_images(int32_t variant) {
  const lvc_info *info = lvc_variant + variant;
  return info->inputs && info->input->rank ? *info->input->shape : 1;
}

int32_t lvc_variant_for(int64_t images) {
  int32_t best = 0;
  for (int32_t other = 1; other < LVC_VARIANTS; other++) {
    int64_t found = lvc_images(other), known = lvc_images(best);
    if (known < images ? found > known : found >= images && found < known) best = other;
  }
  return best;
}

static const lvc_tensor *lvc_tensor_of(int32_t variant, int i) {
  const lvc_info *info = lvc_variant + variant;
  return i < LVC_INPUTS ? info->input + i : info->output + i - LVC_INPUTS;
}

/* the room that an input or output takes in the largest variant */
static uint64_t lvc_staged(int i) {
  uint64_t most = 0;
  for (int32_t variant = 0; variant < LVC_VARIANTS; variant++) {
    uint64_t bytes = lvc_tensor_of(variant, i)->bytes;
    if (bytes > most) most = bytes;
  }
  return lvc_rounded(most);
}

/* where the steps of a variant begin among those of all */
static int32_t lvc_first_step(int32_t variant) {
  int32_t first = 0;
  for (int32_t other = 0; other < variant; other++) first += lvc_variant[other].steps;
  return first;
}
