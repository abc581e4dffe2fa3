// Buffers that are bound once.
#include "session.hpp"

#include <cstdint>
#include <string>
#include <vector>

#include "bundle_of_test.hpp"
#include "check.hpp"
#include "salience/errors.hpp"

using namespace salience;
using namespace salience::test;

namespace {

struct Fixture {
  Bundle bundle{bundle_of_test()};
  Engine engine{std::make_shared<Ort::Env>(ORT_LOGGING_LEVEL_ERROR, "test"), bundle, "saliency",
                bundle.manifest().default_precision, EngineOptions{}};
  std::int64_t height = bundle.manifest().input_size.first;
  std::int64_t width = bundle.manifest().input_size.second;
  std::vector<float> input = std::vector<float>(static_cast<std::size_t>(3 * height * width), 0.25f);

  Shape shape(std::int64_t batch) const { return {batch, 3, height, width}; }

  // A message's type and shape: "float32 (2, 3, 288, 288)" for "2, ".
  std::string text(const std::string& front) const {
    return "float32 (" + front + "3, " + std::to_string(height) + ", " + std::to_string(width) + ")";
  }
};

void gives_what_a_run_gives(const Fixture& fixture) {
  const Shape shape = fixture.shape(1);
  Session session(fixture.engine, 1);
  session.feed("input", fixture.input, shape);
  session.run();
  Tensors feeds;
  feeds.add("input", view_of(fixture.input.data(), shape));
  CHECK(session.read("saliency") == floats_of(fixture.engine.run(feeds).take("saliency")));
}

void what_was_taken_is_not_written_again(const Fixture& fixture) {
  Session session(fixture.engine, 1);
  session.feed("input", fixture.input, fixture.shape(1));
  session.run();
  const std::vector<float> first = session.read("saliency");
  const Held held = session.take("saliency");
  session.feed("input", std::vector<float>(fixture.input.size(), -1.0f), fixture.shape(1));
  session.run();
  CHECK(session.read("saliency") != first);
  CHECK(floats_of(*held.buffer) == first);
  CHECK_EQUAL(held.bytes(), static_cast<std::size_t>(4 * fixture.height * fixture.width));
}

void refuses(const Fixture& fixture) {
  CHECK_THROWS(EngineError, Session(fixture.engine, 0), "a session for a batch of 0 was asked for");
  Session session(fixture.engine, 2);
  CHECK_THROWS(EngineError, session.run(), "run() was called before input had values; feed or link every input.");
  CHECK_THROWS(EngineError, session.read("saliency"), "saliency was read with no run since the inputs were fed");
  CHECK_THROWS(EngineError, session.take("saliency"), "saliency was taken with no run");
  CHECK_THROWS(EngineError, session.feed("other", fixture.input, {1}),
               "input 'other' is not known; the graph has input.");
  CHECK_THROWS(
      EngineError, session.feed("input", fixture.input, fixture.shape(1)),
      "input: got " + fixture.text("1, ") + ", expected " + fixture.text("2, ") + ", what the session was opened for.");
  CHECK_THROWS(EngineError, session.feed("input", fixture.input, fixture.shape(2)), "what the session was opened for");
  CHECK_THROWS(EngineError, session.link("saliency", "input"), "cannot become input");
  CHECK_THROWS(EngineError, session.put("input", Held{}),
               "input: got float32 (), expected " + fixture.text("2, ") + ".");
}

void engine_refuses_feeds_that_do_not_fit(const Fixture& fixture) {
  CHECK_THROWS(EngineError, fixture.engine.run({}), "inputs none given, expected input.");
  Tensors feeds;
  feeds.add("input", view_of(fixture.input.data(), {3, fixture.height, fixture.width}));
  CHECK_THROWS(EngineError, fixture.engine.run(feeds),
               "input: got " + fixture.text("") + ", expected " + fixture.text("batch, ") + ".");
}

}  // namespace

int main() {
  const Fixture fixture;
  gives_what_a_run_gives(fixture);
  what_was_taken_is_not_written_again(fixture);
  refuses(fixture);
  engine_refuses_feeds_that_do_not_fit(fixture);
  return result();
}
