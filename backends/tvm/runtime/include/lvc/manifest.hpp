// What an artefact says of itself, as lvc's container and plan write it.
#ifndef LVC_MANIFEST_HPP
#define LVC_MANIFEST_HPP

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "json.hpp"
#include "status.hpp"
#include "tensor.hpp"

namespace lvc::detail {

struct manifest {
  std::string name, target, backend, task, preprocessing;
  std::vector<value> inputs, outputs;
  std::vector<signature> variants;  // the first is that of inputs and outputs
  std::vector<std::string> labels;
  std::map<std::string, std::uint64_t> files;  // the bytes of each
};

/// What code needs of a machine, and the sums of the files that belong to it. Where its kernels are for a kind of device
/// beside the processor, `host` is the kind of the latter.
struct plan {
  std::string kind, host, flags_key;
  std::vector<std::string> flags;
  std::map<std::string, std::uint64_t> checksums;
};

/// Reads `f32[1,3,224,224]`.
inline bool read_spec(std::string_view text, value &made) {
  for (const element_type &type : element_types)
    if (text.substr(0, text.find('[')) == type.name) made.type = type;
  if (!made.type.bits) return false;
  json sizes(text.substr(made.type.name.size()));
  std::uint64_t size, bytes = made.type.bytes();
  bool is_sound = sizes.array([&] {
    if (!sizes.integer(size) || (size && bytes > (std::uint64_t{1} << 40) / size)) return false;
    bytes *= size;
    made.shape.push_back(static_cast<std::int64_t>(size));
    return true;
  });
  made.elements = static_cast<std::size_t>(bytes / made.type.bytes());
  return is_sound && sizes.is_done() && made.shape.size() <= 32;
}

class manifest_reader {
 public:
  static status read(std::string_view text, manifest &made) {
    std::uint64_t format = 0;
    status found = read_version(text, "format", 1, format);
    if (!found.ok()) return found;
    if (!manifest_reader(text, made).members()) return damaged("its manifest is not as it should be");
    made.variants.insert(made.variants.begin(), {made.inputs, made.outputs});
    if (made.backend != "tvm")
      return {errc::wrong_machine, "the artefact of the backend '" + shown(made.backend) + "' holds no native code"};
    return {};
  }

  static status read(std::string_view text, plan &made) {
    std::uint64_t version = 0;
    status found = read_version(text, "version", 4, version);
    if (!found.ok()) return found;
    json in(text);
    bool is_sound = in.object([&](const std::string &key) {
      if (key == "kind") return in.text(made.kind);
      if (key == "host") return in.text(made.host);
      if (key == "checksums")
        return in.object([&](const std::string &name) { return in.integer(made.checksums[name]); });
      return key == "flags" ? read_flags(in, made) : in.skip();
    });
    return is_sound && in.is_done() && !made.kind.empty() ? status() : damaged("its plan is not as it should be");
  }

 private:
  manifest_reader(std::string_view text, manifest &made) : in_(text), made_(made) {}

  /// First of all, since what another version writes may look otherwise.
  static status read_version(std::string_view text, const char *name, std::uint64_t known, std::uint64_t &version) {
    json in(text);
    bool is_sound = in.object([&](const std::string &key) { return key == name ? in.integer(version) : in.skip(); });
    if (!is_sound) return damaged("what it says of itself is no JSON");
    if (version == known) return {};
    return {errc::wrong_version, "the artefact has " + std::string(name) + " " + std::to_string(version) +
                                     ", and this lvc.hpp reads " + std::to_string(known) +
                                     ": compile the model again with the lvc that the header is of"};
  }

  static bool read_flags(json &in, plan &made) {
    return in.object([&](const std::string &key) {
      if (key == "key") return in.text(made.flags_key);
      return key == "words" ? texts(in, made.flags) : in.skip();
    });
  }

  bool members() {
    bool is_sound = in_.object([&](const std::string &key) {
      if (key == "name") return in_.text(made_.name);
      if (key == "target") return in_.text(made_.target);
      if (key == "backend") return in_.text(made_.backend);
      if (key == "inputs") return values(made_.inputs);
      if (key == "outputs") return values(made_.outputs);
      if (key == "variants") return variants();
      if (key == "files") return files();
      return key == "metadata" ? metadata() : in_.skip();
    });
    return is_sound && in_.is_done();
  }

  bool metadata() {
    return in_.object([&](const std::string &key) {
      if (key == "task") return in_.text(made_.task);
      if (key == "preprocessing") return in_.text(made_.preprocessing);
      return key == "labels" ? texts(in_, made_.labels) : in_.skip();
    });
  }

  bool files() {
    return in_.object([&](const std::string &name) {
      std::uint64_t &bytes = made_.files[name];
      return in_.object([&](const std::string &key) { return key == "bytes" ? in_.integer(bytes) : in_.skip(); });
    });
  }

  bool variants() {
    made_.variants.clear();
    return in_.array([&] {
      made_.variants.emplace_back();
      signature &one = made_.variants.back();
      return in_.object([&](const std::string &key) {
        if (key == "inputs") return values(one.inputs);
        return key == "outputs" ? values(one.outputs) : in_.skip();
      });
    });
  }

  /// Pairs of a name and a spec.
  bool values(std::vector<value> &made) {
    made.clear();
    return in_.array([&] {
      value one;
      std::string part;
      unsigned parts = 0;
      bool is_sound = in_.array([&] { return parts++ ? in_.text(part) : in_.text(one.name); });
      made.push_back(one);
      return is_sound && parts == 2 && read_spec(part, made.back());
    });
  }

  static bool texts(json &in, std::vector<std::string> &made) {
    made.clear();
    return in.array([&] {
      made.emplace_back();
      return in.text(made.back());
    });
  }

  json in_;
  manifest &made_;
};

}  // namespace lvc::detail
#endif
