// A model that was loaded, and instances of it that run.
#ifndef LVC_MODEL_HPP
#define LVC_MODEL_HPP

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "library.hpp"
#include "manifest.hpp"
#include "memory.hpp"
#include "span.hpp"
#include "status.hpp"
#include "tensor.hpp"
#include "zip.hpp"

namespace lvc {

namespace detail {

struct loaded;

/// An instance in C, and the model and the instance that it reads from.
struct handle {
  std::shared_ptr<loaded> model;
  std::shared_ptr<handle> shared;
  lvc_model *made = nullptr;
  pid_t process = getpid();

  /// Its threads stay behind when the process is forked.
  bool is_from_here() const { return process == getpid(); }

  inline ~handle();
};

/// All that instances share.
struct loaded {
  manifest about;
  library binary;
  aligned_bytes own;              // the file, if it was read here
  aligned_bytes unpacked;         // the weights, where they could not stay in the file
  const std::uint8_t *weights = nullptr;
  std::mutex mutex;
  std::weak_ptr<handle> first;    // what setup computes is shared with it

  status load(file_bytes file);

 private:
  static status find(const std::vector<zip_entry> &entries, const char *name, const zip_entry *&entry);
  static status unpack_text(const zip_entry &entry, std::string &text);
  status check_files(const std::vector<zip_entry> &entries) const;
  status load_weights(const zip_entry &entry);
  status load_code(const zip_entry &entry);
  status check_signatures();
  static bool is_same(const std::vector<value> &said, const lvc_tensor *are, std::int32_t count);
};

inline handle::~handle() {
  if (made && is_from_here()) model->binary.destroy(made);
}

inline status loaded::unpack_text(const zip_entry &entry, std::string &text) {
  if (entry.size > 64u << 20) return damaged("'" + entry.name + "' is too large");
  text.resize(entry.size);
  return unpack(entry, {reinterpret_cast<std::uint8_t *>(text.data()), text.size()});
}

inline status loaded::find(const std::vector<zip_entry> &entries, const char *name, const zip_entry *&entry) {
  for (const zip_entry &one : entries)
    if (one.name == name) entry = &one;
  return entry ? status() : damaged("it lacks '" + std::string(name) + "'");
}

/// Beside the manifest there are the files that it lists, with their sizes.
inline status loaded::check_files(const std::vector<zip_entry> &entries) const {
  if (entries.size() != about.files.size() + 1) return damaged("it has other files than its manifest says");
  for (const zip_entry &entry : entries) {
    if (entry.name == "manifest.json") continue;
    auto known = about.files.find(entry.name);
    if (known == about.files.end() || known->second != entry.size)
      return damaged("'" + entry.name + "' is not as its manifest says");
  }
  return {};
}

inline status loaded::load(file_bytes file) {
  std::vector<zip_entry> entries;
  std::string text;
  const zip_entry *described = nullptr, *planned = nullptr, *code = nullptr, *stored = nullptr;
  plan needed;
  status found = zip_directory(file).read(entries);
  if (found.ok()) found = find(entries, "manifest.json", described);
  if (found.ok()) found = unpack_text(*described, text);
  if (found.ok()) found = manifest_reader::read(text, about);
  if (found.ok()) found = check_files(entries);
  if (found.ok()) found = find(entries, "plan.json", planned);
  if (found.ok()) found = find(entries, "model.so", code);
  if (found.ok()) found = find(entries, "weights.bin", stored);
  if (found.ok()) found = unpack_text(*planned, text);
  if (found.ok()) found = manifest_reader::read(text, needed);
  for (const zip_entry *entry : {code, stored})
    if (found.ok() && needed.checksums[entry->name] != entry->crc)
      found = damaged("its '" + entry->name + "' is not the one that its plan is of");
  if (found.ok()) found = check_machine(needed, about.target);
  if (found.ok()) found = load_weights(*stored);
  if (found.ok()) found = load_code(*code);
  if (!found.ok()) return found;
  if (binary.info()->weight_bytes != stored->size) return damaged("its weights have another size than its code says");
  if (unpacked.data()) own.clear();
  return check_signatures();
}

inline status loaded::load_code(const zip_entry &entry) {
  aligned_bytes content;
  if (!content.resize(entry.size)) return no_memory(entry.size);
  status found = unpack(entry, {content.data(), content.size()});
  return found.ok() ? binary.open({content.data(), content.size()}) : found;
}

/// Stored weights at a multiple of LVC_ALIGNMENT are read where they lie.
inline status loaded::load_weights(const zip_entry &entry) {
  weights = entry.packed.data();
  if (!entry.is_deflated && is_aligned(weights))
    return crc32(entry.packed) == entry.crc ? status() : damaged("the sum of '" + entry.name + "' is wrong");
  if (!unpacked.resize(entry.size)) return no_memory(entry.size);
  status found = unpack(entry, {unpacked.data(), unpacked.size()});
  weights = unpacked.data();
  return found;
}

inline bool loaded::is_same(const std::vector<value> &said, const lvc_tensor *are, std::int32_t count) {
  if (said.size() != static_cast<std::size_t>(count)) return false;
  for (std::size_t i = 0; i < said.size(); i++) {
    const lvc_tensor &is = are[i];
    if (said[i].shape != std::vector<std::int64_t>(is.shape, is.shape + is.rank)) return false;
    if (said[i].type.code != is.code || said[i].type.bits != is.bits || said[i].bytes() != is.bytes) return false;
  }
  return true;
}

inline status loaded::check_signatures() {
  const std::vector<signature> &said = about.variants;
  bool has_several = said.size() > 1;
  if (has_several)
    if (status found = binary.open_variants(); !found.ok()) return found;
  for (std::size_t i = 0; i < said.size(); i++) {
    const lvc_info *info = has_several ? binary.variant_info(static_cast<std::int32_t>(i)) : binary.info();
    if (!info || !is_same(said[i].inputs, info->input, info->inputs) ||
        !is_same(said[i].outputs, info->output, info->outputs))
      return damaged("its code has another signature than its manifest");
  }
  if (!has_several || !binary.variant_info(static_cast<std::int32_t>(said.size()))) return {};
  return damaged("its code has more variants than its manifest");
}

}  // namespace detail

/// A model that was loaded: what it takes and gives, and the weights that its instances share. Copies are the same one.
/// What is damaged or lies is refused, but its code is code: load only artefacts whose maker you trust.
class model {
 public:
  model() = default;

  static model from_file(const std::string &name, status &found) {
    auto made = std::make_shared<detail::loaded>();
    found = detail::read_file(name, made->own);
    if (found.ok()) found = made->load({made->own.data(), made->own.size()});
    if (!found.ok() && found.code() != errc::cannot_read) found = {found.code(), name + ": " + found.message()};
    return found.ok() ? model(std::move(made)) : model();
  }

  /// Of an artefact in memory, which has to stay there as it is as long as the model and its instances: weights are
  /// read where they lie if they begin at a multiple of LVC_ALIGNMENT, as stored ones do if the artefact does.
  static model from_memory(span<const std::uint8_t> artefact, status &found) {
    auto made = std::make_shared<detail::loaded>();
    found = made->load(artefact);
    return found.ok() ? model(std::move(made)) : model();
  }

#ifdef __cpp_exceptions
  static model from_file(const std::string &name) {
    status found;
    model made = from_file(name, found);
    return detail::check(found), made;
  }

  static model from_memory(span<const std::uint8_t> artefact) {
    status found;
    model made = from_memory(artefact, found);
    return detail::check(found), made;
  }
#endif

  /// Whether there is a model: it was loaded, and is no default.
  explicit operator bool() const { return loaded_ != nullptr; }

  const std::string &name() const { return about().name; }
  const std::string &target() const { return about().target; }
  const std::vector<value> &inputs() const { return about().inputs; }
  const std::vector<value> &outputs() const { return about().outputs; }

  /// What it takes and gives in each shape that it was built for; the first is that of `inputs` and `outputs`.
  const std::vector<signature> &variants() const { return about().variants; }

  /// The number of the smallest variant that takes so many images, by the first dimension of its first input; of the
  /// largest where none does. Rows behind the images may hold any numbers.
  std::size_t variant_for(std::size_t images) const {
    std::size_t best = 0, known = images_of(0);
    for (std::size_t other = 1; other < variants().size(); other++) {
      std::size_t found = images_of(other);
      if (known < images ? found > known : found >= images && found < known) best = other, known = found;
    }
    return best;
  }

  /// "classify", "detect", "segment", "instance" or "pose", or empty where it is not known.
  const std::string &task() const { return about().task; }

  /// The names of the classes; empty where they are not known.
  const std::vector<std::string> &labels() const { return about().labels; }

  /// How an image becomes the input, as text: see `preprocessing::parse`. Empty where it is not known.
  const std::string &preprocessing_text() const { return about().preprocessing; }

  /// Whether weights are read where the artefact lies, in a file that was read or in the memory that was given.
  bool has_weights_in_place() const { return loaded_ && !loaded_->unpacked.data(); }

 private:
  friend class instance;
  explicit model(std::shared_ptr<detail::loaded> made) : loaded_(std::move(made)) {}

  std::size_t images_of(std::size_t number) const {
    if (number >= variants().size()) return 1;
    const std::vector<value> &inputs = variants()[number].inputs;
    return inputs.empty() || inputs[0].shape.empty() ? 1 : static_cast<std::size_t>(inputs[0].shape[0]);
  }

  const detail::manifest &about() const {
    static const detail::manifest nothing;
    return loaded_ ? loaded_->about : nothing;
  }

  std::shared_ptr<detail::loaded> loaded_;
};

/// A model with memory and threads of its own, for one call at a time; there may be as many as memory allows, each used
/// by another thread. Weights, and what is computed of them once, are shared. It keeps the model alive.
class instance {
 public:
  instance() = default;
  instance(instance &&) = default;
  instance &operator=(instance &&) = default;

  /// On so many threads, the caller's among them. Nothing is allocated later, in a run.
  instance(const model &of, int threads, status &found) {
    found = of ? create(of.loaded_, threads) : status(errc::wrong_argument, "there is no model to make an instance of");
    if (!found.ok()) handle_.reset();
  }

  /// Run on elements in the order of the signature, of its types, or bytes of the same size. Inputs and outputs do not
  /// overlap; those that begin at a multiple of LVC_ALIGNMENT are not copied, but to a GPU and back.
  void run(span<const input> inputs, span<const output> outputs, status &found) {
    run_variant(0, inputs, outputs, found);
  }

  /// The same with inputs and outputs of one of `model::variants`.
  void run_variant(std::size_t number, span<const input> inputs, span<const output> outputs, status &found) {
    found = handle_ ? check(number, inputs, outputs) : status(errc::wrong_argument, "there is no instance to run");
    if (found.ok() && !handle_->is_from_here())
      found = {errc::cannot_run, "the instance was made before this process was forked: make one here"};
    if (!found.ok()) return;
    for (std::size_t i = 0; i < inputs.size(); i++) in_[i] = inputs[i].data();
    for (std::size_t i = 0; i < outputs.size(); i++) out_[i] = outputs[i].data();
    const detail::library &binary = handle_->model->binary;
    int failed = number ? binary.run_variant(handle_->made, static_cast<std::int32_t>(number), in_.data(), out_.data())
                        : binary.run(handle_->made, in_.data(), out_.data());
    if (failed)
      found = {errc::cannot_run, std::string("the model cannot be run: ") + binary.text(failed)};
  }

#ifdef __cpp_exceptions
  explicit instance(const model &of, int threads = 1) {
    status found;
    *this = instance(of, threads, found);
    detail::check(found);
  }

  void run(span<const input> inputs, span<const output> outputs) { run_variant(0, inputs, outputs); }

  void run_variant(std::size_t number, span<const input> inputs, span<const output> outputs) {
    status found;
    run_variant(number, inputs, outputs, found);
    detail::check(found);
  }
#endif

  explicit operator bool() const { return handle_ != nullptr; }

 private:
  status create(const std::shared_ptr<detail::loaded> &model, int threads) {
    std::lock_guard<std::mutex> lock(model->mutex);
    handle_ = std::make_shared<detail::handle>();
    handle_->model = model;
    handle_->shared = model->first.lock();
    lvc_model *shared = handle_->shared ? handle_->shared->made : nullptr;
    const void *weights = model->binary.info()->weight_bytes ? model->weights : nullptr;
    if (int failed = model->binary.create(weights, threads, shared, &handle_->made))
      return {errc::cannot_run, std::string("an instance cannot be made: ") + model->binary.text(failed)};
    if (!shared) model->first = handle_;
    in_.resize(model->about.inputs.size());
    out_.resize(model->about.outputs.size());
    return {};
  }

  status check(std::size_t number, span<const input> inputs, span<const output> outputs) const {
    const std::vector<signature> &known = handle_->model->about.variants;
    if (number >= known.size())
      return {errc::wrong_argument, "the model has " + std::to_string(known.size()) + " variant(s), and number " +
                                        std::to_string(number) + " is none"};
    const signature &about = known[number];
    status found = check_all("input", about.inputs, inputs);
    if (found.ok()) found = check_all("output", about.outputs, outputs);
    for (std::size_t i = 0; i < outputs.size() && found.ok(); i++) {
      for (std::size_t other = 0; other < outputs.size(); other++)
        if (other != i && overlap(outputs[i], outputs[other])) found = apart(about.outputs[i], about.outputs[other]);
      for (std::size_t other = 0; other < inputs.size(); other++)
        if (overlap(outputs[i], inputs[other])) found = apart(about.outputs[i], about.inputs[other]);
    }
    return found;
  }

  template <class View>
  static status check_all(const char *side, const std::vector<value> &wanted, span<const View> given) {
    if (wanted.size() != given.size())
      return {errc::wrong_argument, "the model has " + std::to_string(wanted.size()) + " " + side + "(s), " +
                                        std::to_string(given.size()) + " given"};
    for (std::size_t i = 0; i < wanted.size(); i++) {
      const value &is = wanted[i];
      auto wrong = [&](const std::string &why) {
        return status(errc::wrong_argument, detail::described(side, is) + why);
      };
      bool is_of_type = given[i].type() == is.type || given[i].type() == element_of<std::byte>::type;
      if (!is_of_type) return wrong(", and other elements are given");
      std::size_t bytes = given[i].bytes();
      if (bytes != is.bytes())
        return wrong(" of " + std::to_string(is.bytes()) + " bytes, and " + std::to_string(bytes) + " are given");
    }
    return {};
  }

  template <class View>
  static bool overlap(const output &one, const View &other) {
    auto begin = [](auto &view) { return reinterpret_cast<std::uintptr_t>(view.data()); };
    return begin(one) < begin(other) + other.bytes() && begin(other) < begin(one) + one.bytes();
  }

  static status apart(const value &one, const value &other) {
    std::string text = detail::described("output", one) + " and lies where '" + detail::shown(other.name) + "' does";
    return {errc::wrong_argument, text};
  }

  std::shared_ptr<detail::handle> handle_;
  std::vector<const void *> in_;
  std::vector<void *> out_;
};

}  // namespace lvc
#endif
