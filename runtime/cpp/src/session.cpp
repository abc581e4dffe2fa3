#include "session.hpp"

#include "salience/errors.hpp"
#include "text.hpp"

namespace salience {
namespace {

std::string described(DataType type, const Shape& shape) {
  return std::string(name_of(type)) + " " + shape_text(shape);
}

}  // namespace

Session::Session(const Engine& engine, std::int64_t batch)
    : engine_(engine), batch_(batch), binding_(engine.session()) {
  if (batch < 1) fail("a session for a batch of " + std::to_string(batch) + " was asked for, expected at least 1.");
  for (const Specs* specs : {&engine.inputs(), &engine.outputs()}) {
    for (const TensorSpec& wanted : *specs) place(wanted.name, allocate(wanted));
  }
  for (const TensorSpec& wanted : engine.inputs()) missing_.insert(wanted.name);
}

void Session::feed(const std::string& name, std::span<const float> values, const Shape& shape) {
  upload(name, std::as_bytes(values), DataType::kFloat32, shape);
}

void Session::feed(const std::string& name, std::span<const std::int64_t> values, const Shape& shape) {
  upload(name, std::as_bytes(values), DataType::kInt64, shape);
}

std::vector<float> Session::read(const std::string& name) const {
  const TensorSpec& wanted = output(name);
  require_run(name, "read");
  if (wanted.type != DataType::kFloat32)
    fail(name + ": got " + std::string(name_of(wanted.type)) + ", expected float32.");
  // After a run a linked output's values are in its input's buffer.
  const auto linked = links_.find(name);
  const Buffer& buffer = buffers_.at(linked == links_.end() ? name : linked->second);
  std::vector<float> values(count_of(wanted.at(batch_)));
  engine_.copy(values.data(), buffer->GetTensorRawData(), values.size() * sizeof(float));
  return values;
}

void Session::link(const std::string& output_name, const std::string& name) {
  require_linkable(output_name, name, *this);
  ran_ = false;
  linked_.insert({output_name, name});
  links_[output_name] = name;
}

void Session::link(const std::string& output_name, const std::string& name, Session& to) {
  require_linkable(output_name, name, to);
  ran_ = to.ran_ = false;
  linked_.insert(output_name);
  to.linked_.insert(name);
  to.place(name, buffers_.at(output_name));
  to.missing_.erase(name);
}

void Session::require_linkable(const std::string& output_name, const std::string& name, const Session& to) const {
  const TensorSpec& source = output(output_name);
  const TensorSpec& goal = to.input(name);
  const Shape given = source.at(batch_), wanted = goal.at(to.batch_);
  if (given != wanted || source.type != goal.type) {
    fail(output_name + " (" + described(source.type, given) + ") cannot become " + name + " (" +
         described(goal.type, wanted) + "); link tensors of one type and shape.");
  }
  if (engine_.options().device_index() != to.engine_.options().device_index() ||
      engine_.options().on_gpu() != to.engine_.options().on_gpu()) {
    fail(output_name + " cannot be linked to a session of " + to.engine_.label() + ".");
  }
  if (linked_.contains(output_name) || to.linked_.contains(name)) {
    fail(output_name + " or " + name + " is linked already; open another session.");
  }
}

Held Session::take(const std::string& name) {
  const TensorSpec& wanted = output(name);
  if (linked_.contains(name)) fail(name + " is linked, so it cannot be taken.");
  require_run(name, "taken");
  Held held{buffers_.at(name), wanted.type, wanted.at(batch_)};
  place(name, allocate(wanted));
  return held;
}

void Session::put(const std::string& name, const Held& held) {
  const TensorSpec& wanted = input(name);
  const Shape shape = wanted.at(batch_);
  if (linked_.contains(name)) fail(name + " is linked, so nothing else can be put there.");
  if (held.shape != shape || held.type != wanted.type) {
    fail(name + ": got " + described(held.type, held.shape) + ", expected " + described(wanted.type, shape) + ".");
  }
  ran_ = false;
  place(name, held.buffer);
  missing_.erase(name);
}

void Session::run() {
  if (!missing_.empty()) {
    const std::vector<std::string> names(missing_.begin(), missing_.end());
    fail("run() was called before " + joined(names) + " had values; feed or link every input.");
  }
  // A run that fails leaves nothing to read.
  ran_ = false;
  try {
    engine_.session().Run(Ort::RunOptions{}, binding_);
  } catch (const Ort::Exception& error) {
    fail("failed while running (" + first_line(error) + ").");
  }
  for (const auto& [output_name, name] : links_) {
    const Buffer fresh = buffers_.at(output_name), stale = buffers_.at(name);
    place(name, fresh);
    place(output_name, stale);
  }
  ran_ = true;
}

void Session::fail(const std::string& what) const { throw EngineError(engine_.label() + ": " + what); }

const TensorSpec& Session::spec(const std::string& name, const Specs& specs, const char* kind) const {
  const TensorSpec* found = find(specs, name);
  if (!found) fail(kind + (" " + in_quotes(name)) + " is not known; the graph has " + joined(names_of(specs)) + ".");
  return *found;
}

void Session::require_run(const std::string& name, const char* done) const {
  if (!ran_) fail(name + " was " + done + " with no run since the inputs were fed; call run() first.");
}

Buffer Session::allocate(const TensorSpec& wanted) const {
  const Shape shape = wanted.at(batch_);
  count_of(shape, bytes_of(wanted.type));
  try {
    return std::make_shared<Ort::Value>(
        Ort::Value::CreateTensor(engine_.allocator(), shape.data(), shape.size(), element_type(wanted.type)));
  } catch (const Ort::Exception& error) {
    fail("no buffer of " + described(wanted.type, shape) + " (" + first_line(error) + ").");
  }
}

void Session::place(const std::string& name, Buffer buffer) {
  try {
    if (find(engine_.inputs(), name)) {
      binding_.BindInput(name.c_str(), *buffer);
    } else {
      binding_.BindOutput(name.c_str(), *buffer);
    }
  } catch (const Ort::Exception& error) {
    fail(name + " cannot be bound (" + first_line(error) + ").");
  }
  buffers_[name] = std::move(buffer);
}

void Session::upload(const std::string& name, std::span<const std::byte> data, DataType type, const Shape& shape) {
  const TensorSpec& wanted = input(name);
  const Shape expected = wanted.at(batch_);
  if (type != wanted.type || shape != expected || data.size() != count_of(shape) * bytes_of(type)) {
    fail(name + ": got " + described(type, shape) + ", expected " + described(wanted.type, expected) +
         ", what the session was opened for.");
  }
  ran_ = false;
  engine_.copy(buffers_.at(name)->GetTensorMutableRawData(), data.data(), data.size());
  missing_.erase(name);
}

}  // namespace salience
