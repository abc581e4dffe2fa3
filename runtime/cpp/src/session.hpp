// A graph with its tensors bound once to buffers that stay on the device: what iterative methods loop over.
#pragma once

#include <onnxruntime_cxx_api.h>

#include <cstddef>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "engine.hpp"
#include "tensor.hpp"

namespace salience {

using Buffer = std::shared_ptr<Ort::Value>;

// A tensor on the device that no session writes to: what `Session::take` leaves and `Session::put` accepts.
struct Held {
  Buffer buffer;
  DataType type = DataType::kFloat32;
  Shape shape;

  std::size_t bytes() const { return count_of(shape, bytes_of(type)) * bytes_of(type); }
};

// Runs one graph again and again on its own buffers; for one thread at a time. `feed` and `read` copy between host and
// device, `run` copies nothing. An output that is linked to an input of its own session trades buffers with it after
// every run; one that is linked to an input of another session shares its buffer. Errors are EngineError.
class Session {
 public:
  // `batch` is the size of the tensors' free dimensions; `engine` must outlive the session.
  Session(const Engine& engine, std::int64_t batch);

  std::int64_t batch() const { return batch_; }

  // Copy values into the buffer of input `name`.
  void feed(const std::string& name, std::span<const float> values, const Shape& shape);
  void feed(const std::string& name, std::span<const std::int64_t> values, const Shape& shape);

  // A copy of the float32 output `name` of the last run.
  std::vector<float> read(const std::string& name) const;

  // Let input `name` of the next run be what `output` is: of this session, or of session `to`. To be called before the
  // inputs are fed; a tensor can be linked once.
  void link(const std::string& output, const std::string& name);
  void link(const std::string& output, const std::string& name, Session& to);

  // Output `name` of the last run, on the device; the session writes the next one elsewhere.
  Held take(const std::string& name);

  // Let input `name` be what a session of the same engine's device held; nothing is copied.
  void put(const std::string& name, const Held& held);

  // Run the graph on what its buffers hold.
  void run();

 private:
  using Specs = std::vector<TensorSpec>;

  [[noreturn]] void fail(const std::string& what) const;
  const TensorSpec& spec(const std::string& name, const Specs& specs, const char* kind) const;
  const TensorSpec& input(const std::string& name) const { return spec(name, engine_.inputs(), "input"); }
  const TensorSpec& output(const std::string& name) const { return spec(name, engine_.outputs(), "output"); }
  void require_run(const std::string& name, const char* done) const;
  void require_linkable(const std::string& output, const std::string& name, const Session& to) const;
  Buffer allocate(const TensorSpec& wanted) const;
  // The old buffer is let go once nothing reads or writes it any more.
  void place(const std::string& name, Buffer buffer);
  void upload(const std::string& name, std::span<const std::byte> data, DataType type, const Shape& shape);

  const Engine& engine_;
  std::int64_t batch_;
  Ort::IoBinding binding_;
  std::map<std::string, Buffer> buffers_;
  std::map<std::string, std::string> links_;  // output -> input of this session
  std::set<std::string> linked_;              // outputs and inputs
  std::set<std::string> missing_;             // inputs without values
  bool ran_ = false;
};

}  // namespace salience
