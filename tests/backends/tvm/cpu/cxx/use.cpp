// A model used as programs use it: use WHAT FILE..., see the end.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "files.hpp"
#include "mutations.hpp"

static void describe(const char *name) {
  lvc::model model = lvc::model::from_file(name);
  std::printf("name %s\ntask %s\npreprocessing %s\n", model.name().c_str(), model.task().c_str(),
              model.preprocessing_text().c_str());
  auto print = [](const char *side, const lvc::value &value) {
    std::printf("%s %s %s\n", side, value.name.c_str(), value.spec().c_str());
  };
  for (const lvc::value &value : model.inputs()) print("input", value);
  for (const lvc::value &value : model.outputs()) print("output", value);
  for (const std::string &label : model.labels()) std::printf("label %s\n", label.c_str());
  std::printf("in place %d\n", model.has_weights_in_place());
}

/// The same from a file, and from memory that begins at a good and at a bad place.
static void run(const char *name, const char *given, const char *result) {
  bytes content = read_whole(name), input = read_whole(given);
  lvc::model model = lvc::model::from_file(name);
  lvc::instance instance(model, 2);
  bytes made = run_whole(instance, model, input);
  for (std::size_t offset : {0u, 1u, 32u}) {
    placed copy(content, offset);
    lvc::model other = lvc::model::from_memory(copy.view());
    check(!offset || !other.has_weights_in_place(), "weights that are not aligned are not read in place");
    lvc::instance its(other);
    check(run_whole(its, other, input) == made, "the same from memory");
  }
  write_whole(result, made.data(), made.size());
}

/// A model for 1 and for 4 images, which takes f32[_,3,16,16] and gives f32[_,10]: five images, a file of them.
static void variants(const char *name, const char *given, const char *result) {
  lvc::model model = lvc::model::from_file(name);
  check(model.variants().size() == 2 && model.variants()[1].inputs[0].spec() == "f32[4,3,16,16]", "variants");
  check(model.variant_for(1) == 0 && model.variant_for(2) == 1 && model.variant_for(9) == 1, "the variant for a number");
  lvc::instance instance(model, 2);
  bytes input = read_whole(given);
  std::vector<float> images(5 * 768), scores(5 * 10);
  std::memcpy(images.data(), input.data(), input.size());
  instance.run_variant(1, {lvc::span<float>(images.data(), 4 * 768)}, {lvc::span<float>(scores.data(), 40)});
  lvc::span<float> last(images.data() + 4 * 768, 768);
  instance.run({last}, {lvc::span<float>(scores.data() + 40, 10)});
  lvc::status found;
  instance.run_variant(1, {last}, {lvc::span<float>(scores.data(), 40)}, found);
  check(found.message().find("is f32[4,3,16,16] of 12288 bytes") != found.message().npos, found.message());
  instance.run_variant(2, {last}, {scores}, found);
  check(found.message().find("has 2 variant(s), and number 2 is none") != found.message().npos, found.message());
  write_whole(result, reinterpret_cast<std::uint8_t *>(scores.data()), scores.size() * sizeof(float));
}

/// Instances that come and go on threads of their own, of one model and of the same loaded again.
static void share(const char *name, const char *given) {
  bytes input = read_whole(given);
  lvc::model model = lvc::model::from_file(name), again = lvc::model::from_file(name);
  bytes wanted;
  {
    lvc::instance first(model);
    wanted = run_whole(first, model, input);
  }
  std::atomic<int> wrong{0};
  auto serve = [&](const lvc::model &own, int threads) {
    for (int round = 0; round < 3; round++) {
      lvc::instance instance(own, threads);
      for (int call = 0; call < 5; call++) wrong += run_whole(instance, own, input) != wanted;
    }
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; i++) callers.emplace_back(serve, i % 2 ? again : model, 1 + i % 3);
  model = lvc::model();  // its instances keep it
  for (std::thread &caller : callers) caller.join();
  check(!wrong, "the same on every thread");
}

/// A forked process refuses the instances of the other, makes its own of the same model, and ends.
static void fork_away(const char *name, const char *given) {
  bytes input = read_whole(given);
  lvc::model model = lvc::model::from_file(name);
  lvc::instance instance(model, 3);
  bytes wanted = run_whole(instance, model, input);
  pid_t child = fork();
  if (child) {
    int status = -1;
    waitpid(child, &status, 0);
    check(!status, "the forked process");
    check(run_whole(instance, model, input) == wanted, "the same after a fork");
    return;
  }
  std::vector<float> image(768), scores(10);
  lvc::status found;
  instance.run({image}, {scores}, found);
  check(found.message().find("before this process was forked") != found.message().npos, found.message());
  {
    lvc::instance own(model, 2);
    check(run_whole(own, model, input) == wanted, "the same in a forked process");
  }
  instance = lvc::instance();
  _exit(0);
}

/// Scores as floats in a file: the best classes with their probabilities.
static void classes(const char *name) {
  bytes content = read_whole(name);
  std::vector<float> scores(content.size() / sizeof(float));
  if (!scores.empty()) std::memcpy(scores.data(), content.data(), content.size());
  std::vector<double> shares = lvc::probabilities(scores);
  for (std::size_t found : lvc::best_classes(scores, 5)) std::printf("%zu %.17g\n", found, shares[found]);
}

/// Each line of a file names deflated data and what they are of.
static void inflate(const char *list) {
  std::ifstream lines(list);
  for (std::string packed, whole; lines >> packed >> whole;) {
    bytes from = read_whole(packed.c_str()), wanted = read_whole(whole.c_str()), made(wanted.size());
    placed source(from, 1);
    check(lvc::detail::inflate(source.view(), {made.data(), made.size()}) && made == wanted, packed);
    made.resize(wanted.size() + 1);
    check(!lvc::detail::inflate(source.view(), {made.data(), made.size()}), "room for more than " + packed);
    if (wanted.empty()) continue;
    check(!lvc::detail::inflate(source.view(), {made.data(), wanted.size() - 1}), "room for less than " + packed);
    check(!lvc::detail::inflate(source.view().part(0, from.size() - 1), {made.data(), wanted.size()}), "cut " + packed);
  }
}

/// Why artefacts are refused, a line each.
static void explain(char **names) {
  for (; *names; names++) {
    bytes content = read_whole(*names);
    placed copy(content, 0);
    lvc::status found;
    lvc::model::from_memory(copy.view(), found);
    std::printf("%d %s\n", static_cast<int>(found.code()), found.message().c_str());
  }
}

/// Why files are refused, a line each.
static void open_files(char **names) {
  for (; *names; names++) {
    lvc::status found;
    lvc::model::from_file(*names, found);
    std::printf("%d %s\n", static_cast<int>(found.code()), found.message().c_str());
  }
}

static void mutate(const char *name, const char *given, const char *count) {
  damaged_runs runs(name, given);
  if (count) runs.run_mutations(static_cast<unsigned>(std::atoi(count)));
  else runs.run_files();
  runs.print();
}

template <class Call>
static void refused(lvc::errc wanted, const char *text, Call call) {
  std::string message;
  try {
    call();
  } catch (const lvc::error &error) {
    message = error.what();
    check(error.code() == wanted, "the code of: " + message);
  }
  check(message.find(text) != message.npos, std::string(text) + " in: " + message);
}

/// Of a model that takes f32[1,3,16,16] and gives f32[1,10].
static void misuse(const char *name) {
  using lvc::errc;
  lvc::model model = lvc::model::from_file(name);
  lvc::instance instance(model), none;
  std::vector<float> image(768), scores(10), few(9);
  std::vector<double> wide(768);
  std::vector<std::uint8_t> raw(768 * 4);
  instance.run({image}, {scores});
  instance.run({lvc::span<const std::byte>(reinterpret_cast<std::byte *>(raw.data()), raw.size())}, {scores});
  lvc::input in(image), from = in;
  lvc::output out(scores), to = out;
  instance.run({from}, {to});
  refused(errc::wrong_argument, "has 1 input(s), 2 given", [&] { instance.run({image, image}, {scores}); });
  refused(errc::wrong_argument, "has 1 output(s), 0 given", [&] { instance.run({image}, {}); });
  refused(errc::wrong_argument, "is f32[1,3,16,16], and other elements", [&] { instance.run({wide}, {scores}); });
  refused(errc::wrong_argument, "is f32[1,3,16,16], and other elements", [&] { instance.run({raw}, {scores}); });
  refused(errc::wrong_argument, "is f32[1,10] of 40 bytes, and 36 are given", [&] { instance.run({image}, {few}); });
  lvc::span<float> end(image.data() + 758, 10);
  refused(errc::wrong_argument, "lies where", [&] { instance.run({image}, {end}); });
  refused(errc::wrong_argument, "there is no instance", [&] { none.run({image}, {scores}); });
  refused(errc::wrong_argument, "there is no model", [&] { lvc::instance nothing{lvc::model()}; });
  refused(errc::cannot_run, "an instance cannot be made", [&] { lvc::instance nothing(model, 0); });
  refused(errc::cannot_read, "cannot read 'none.lvc': No such file", [&] { lvc::model::from_file("none.lvc"); });
  refused(errc::cannot_read, "cannot read '.': it is no file", [&] { lvc::model::from_file("."); });
  refused(errc::damaged, "does not begin", [&] { lvc::model::from_memory(bytes()); });
  lvc::status found;
  check(!lvc::model::from_file("none.lvc", found) && found.code() == errc::cannot_read, "a status");
  instance.run({image, image}, {scores}, found);
  check(found.code() == errc::wrong_argument, "a status of a run");
  instance.run({image}, {scores}, found);
  check(found.ok(), "a run after one that was refused");
}

/// Each line of a file names a preprocessing, a spec and a picture: its kind of pixels, height, width and file.
static void prepare(const char *list, const char *result) {
  std::ifstream lines(list);
  std::string how, spec, name;
  bytes all;
  for (int channels, height, width; lines >> how >> spec >> channels >> height >> width >> name;) {
    bytes pixels = read_whole(name.c_str());
    lvc::value input;
    check(lvc::detail::read_spec(spec, input), spec);
    std::size_t elements = input.elements / static_cast<std::size_t>(input.shape[0]);
    std::vector<float> made(elements);
    bytes made_bytes(elements);
    lvc::image_view view{pixels.data(), height, width, channels};
    bool is_bytes = input.type.bytes() == 1;
    if (is_bytes) lvc::prepare(view, lvc::preprocessing::parse(how), input, made_bytes);
    else lvc::prepare(view, lvc::preprocessing::parse(how), input, made);
    auto *data = is_bytes ? made_bytes.data() : reinterpret_cast<std::uint8_t *>(made.data());
    all.insert(all.end(), data, data + elements * input.type.bytes());
  }
  write_whole(result, all.data(), all.size());
}

/// Of a model whose artefact says resize=20,crop=16.
static void misprepare(const char *name) {
  using lvc::errc;
  lvc::model model = lvc::model::from_file(name);
  lvc::value input = model.inputs()[0];
  bytes pixels(30 * 40 * 3);
  std::vector<float> image(768), few(767);
  std::vector<std::int8_t> small(768);
  lvc::image_view photo{pixels.data(), 30, 40, 3};
  lvc::preprocessing raw = lvc::preprocessing::parse("resize=16x16,range=255");
  lvc::prepare(photo, model, image);
  refused(errc::wrong_argument, "with room for 767", [&] { lvc::prepare(photo, model, few); });
  refused(errc::wrong_argument, "other elements are given", [&] { lvc::prepare(photo, model, small); });
  refused(errc::wrong_argument, "it has no pixels", [&] { lvc::prepare({pixels.data(), 30, 40, 4}, model, image); });
  refused(errc::wrong_argument, "it has no pixels", [&] { lvc::prepare({nullptr, 30, 40, 3}, model, image); });
  refused(errc::wrong_argument, "more than 64000000 pixels",
          [&] { lvc::prepare({pixels.data(), 8001, 8000, 1}, model, image); });
  refused(errc::wrong_argument, "it would become 16000x57600000",
          [&] { lvc::prepare({pixels.data(), 1, 3600, 1}, lvc::preprocessing::parse("resize=16000"), input, image); });
  refused(errc::wrong_argument, "smaller than crop=99x99",
          [&] { lvc::prepare(photo, lvc::preprocessing::parse("crop=99"), input, image); });
  input.type = {"i8", 0, 8};
  refused(errc::wrong_argument, "it becomes other numbers", [&] { lvc::prepare(photo, raw, input, small); });
}

/// Each line of a file is a preprocessing that cannot be read.
static void refuse_preprocessing(const char *list) {
  std::ifstream lines(list);
  for (std::string line; std::getline(lines, line);) {
    lvc::status found;
    lvc::preprocessing::parse(line, found);
    check(found.code() == lvc::errc::wrong_argument, line);
  }
}

int main(int, char **arguments) {
  std::string what = arguments[1];
  if (what == "describe") describe(arguments[2]);
  if (what == "run") run(arguments[2], arguments[3], arguments[4]);
  if (what == "variants") variants(arguments[2], arguments[3], arguments[4]);
  if (what == "share") share(arguments[2], arguments[3]);
  if (what == "mutate") mutate(arguments[2], arguments[3], arguments[4]);
  if (what == "explain") explain(arguments + 2);
  if (what == "open") open_files(arguments + 2);
  if (what == "fork") fork_away(arguments[2], arguments[3]);
  if (what == "classes") classes(arguments[2]);
  if (what == "inflate") inflate(arguments[2]);
  if (what == "misuse") misuse(arguments[2]);
  if (what == "misprepare") misprepare(arguments[2]);
  if (what == "prepare") prepare(arguments[2], arguments[3]);
  if (what == "refuse-preprocessing") refuse_preprocessing(arguments[2]);
}
