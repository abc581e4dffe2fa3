// Many threads on one detector give what one gives; to be run under ThreadSanitizer too.
#include <atomic>
#include <thread>
#include <vector>

#include "bundle_of_test.hpp"
#include "check.hpp"
#include "salience/salience.h"
#include "salience/salience.hpp"

using namespace salience;
using namespace salience::test;

namespace {

constexpr int kThreads = 4;
constexpr int kRounds = 3;

void predicts_alike(const Detector& detector) {
  const std::vector<std::uint8_t> pixels = scene(50, 70);
  const Image image{pixels.data(), 50, 70};
  const std::vector<float> expected = detector.predict(image).values();
  std::atomic<int> wrong = 0;
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&] {
      for (int round = 0; round < kRounds; ++round) wrong += detector.predict(image).values() != expected;
    });
  }
  threads.clear();
  CHECK_EQUAL(wrong.load(), 0);
}

void every_thread_has_its_own_last_error() {
  std::atomic<int> wrong = 0;
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&wrong, thread] {
      const std::string folder = "/no/bundle/" + std::to_string(thread);
      for (int round = 0; round < 100; ++round) {
        salience_detector* detector = nullptr;
        const salience_status status = salience_load(folder.c_str(), nullptr, &detector);
        const std::string message = salience_last_error();
        wrong += status != SALIENCE_BUNDLE || detector != nullptr || !message.starts_with("bundle " + folder + ":");
      }
    });
  }
  threads.clear();
  CHECK_EQUAL(wrong.load(), 0);
}

}  // namespace

int main() {
  // One thread in each call, so that the calls themselves are what runs at once.
  predicts_alike(load(bundle_of_test(), {.threads = 1}));
  every_thread_has_its_own_last_error();
  return result();
}
