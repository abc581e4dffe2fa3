#include "methods/gicd.hpp"

#include <algorithm>
#include <map>

#include "exact_sum.hpp"
#include "text.hpp"

namespace salience {
namespace {

// What `embed` leaves for the host; everything else of it stays on the device.
constexpr const char* kLogits = "logits";

void check_at_least(const char* name, std::size_t value, std::size_t least) {
  if (value >= least) return;
  throw Error(std::string("group: ") + name + " is " + std::to_string(value) + ", expected at least " +
              std::to_string(least) + ".");
}

// Sums of the columns of logits (N, K) less the largest of them, (K,).
std::vector<float> totals_of(std::span<const float> logits, std::size_t pictures) {
  const std::size_t width = logits.size() / pictures;
  std::vector<double> sums(width);
  std::vector<float> column(pictures);
  for (std::size_t k = 0; k < width; ++k) {
    for (std::size_t n = 0; n < pictures; ++n) column[n] = logits[n * width + k];
    sums[k] = exact_sum(column);
  }
  const double largest = sums.empty() ? 0 : *std::ranges::max_element(sums);
  std::vector<float> totals;
  for (const double sum : sums) totals.push_back(static_cast<float>(sum - largest));
  return totals;
}

template <typename Work>
auto naming_member(std::size_t index, Work work) {
  const std::string subject = "picture " + std::to_string(index + 1) + " of the group: ";
  try {
    return work();
  } catch (const ImageError& error) {
    throw ImageError(subject + error.what());
  } catch (const EngineError& error) {
    throw EngineError(subject + error.what());
  }
}

}  // namespace

// Of each graph one for chunks of `batch` pictures and one for smaller chunks, which few are.
class GroupMethod::Sessions {
 public:
  Sessions(const GroupMethod& method, std::int64_t batch) : method_(method), batch_(batch) {}

  // For a chunk of `count` pictures.
  Session& session(const std::string& graph, std::size_t count) {
    const auto wanted = static_cast<std::int64_t>(count);
    std::unique_ptr<Session>& found = open_[{graph, wanted == batch_}];
    if (!found || found->batch() != wanted) found = std::make_unique<Session>(method_.engine(graph), wanted);
    return *found;
  }

 private:
  const GroupMethod& method_;
  std::int64_t batch_;
  std::map<std::pair<std::string, bool>, std::unique_ptr<Session>> open_;
};

// One group: the first pass gathers the consensus, the second gives the maps.
class GroupMethod::Pass {
 public:
  Pass(const GroupMethod& method, Sessions& sessions, std::span<const Prepared> members, const GroupOptions& options)
      : method_(method), sessions_(sessions), members_(members), options_(options) {}

  // The maps (h, w), in order.
  std::vector<std::vector<float>> maps() {
    const Ort::Value guide = gather();
    const std::vector<float> row = floats_of(guide);
    std::vector<std::vector<float>> found;
    for (std::size_t start = 0; start < members_.size(); start += options_.batch) {
      const std::vector<float> values = segment(start, row);
      const std::size_t pixels = method_.map_pixels();
      for (std::size_t at = 0; at < values.size(); at += pixels) {
        found.emplace_back(values.data() + at, values.data() + at + pixels);
      }
    }
    return found;
  }

 private:
  using Features = std::map<std::string, Held>;

  std::span<const Prepared> chunk(std::size_t start) const {
    return members_.subspan(start, std::min(options_.batch, members_.size() - start));
  }

  // The first pass: the guide (1, D) of the group's consensus.
  Ort::Value gather() {
    std::vector<float> logits;
    for (std::size_t start = 0; start < members_.size(); start += options_.batch) {
      Features features = embed(start, &logits);
      std::size_t size = 0;
      for (const auto& [name, held] : features) size += held.bytes();
      if (size > options_.memory_bytes - held_bytes_) continue;
      held_bytes_ += size;
      kept_[start] = std::move(features);
    }
    return method_.guide(logits, 1, members_.size());
  }

  // Features of a chunk, on the device; its logits (N, K) are added to `logits` where given.
  Features embed(std::size_t start, std::vector<float>* logits) {
    const std::span<const Prepared> pictures = chunk(start);
    Session& session = sessions_.session("embed", pictures.size());
    session.feed("input", concatenated(pictures), method_.network_shape(pictures.size(), 3));
    session.run();
    if (logits) {
      const std::vector<float> found = session.read(kLogits);
      logits->insert(logits->end(), found.begin(), found.end());
    }
    Features features;
    for (const TensorSpec& spec : method_.engine("embed").outputs()) {
      if (spec.name != kLogits) features[spec.name] = session.take(spec.name);
    }
    return features;
  }

  std::vector<float> segment(std::size_t start, const std::vector<float>& guide) {
    const auto found = kept_.find(start);
    const Features features = found == kept_.end() ? embed(start, nullptr) : std::move(found->second);
    if (found != kept_.end()) kept_.erase(found);
    const std::size_t count = chunk(start).size();
    Session& session = sessions_.session("segment", count);
    for (const auto& [name, held] : features) session.put(name, held);
    std::vector<float> guides;
    for (std::size_t row = 0; row < count; ++row) guides.insert(guides.end(), guide.begin(), guide.end());
    session.feed("guide", guides, {static_cast<std::int64_t>(count), static_cast<std::int64_t>(guide.size())});
    session.run();
    return session.read("saliency");
  }

  const GroupMethod& method_;
  Sessions& sessions_;
  std::span<const Prepared> members_;
  GroupOptions options_;
  std::map<std::size_t, Features> kept_;
  std::size_t held_bytes_ = 0;
};

GroupMethod::GroupMethod(Service service)
    : Method(std::move(service), std::vector<std::string>{"embed", "consensus", "segment"}) {}

GroupMethod::~GroupMethod() = default;

std::vector<SaliencyMap> GroupMethod::predict_group(std::span<const Image> images, const GroupOptions& options) const {
  const std::vector<Prepared> members = prepare_members(images);
  check_at_least("pictures", members.size(), 1);
  check_at_least("batch", options.batch, 1);
  GroupOptions bounded = options;
  bounded.batch = std::min(options.batch, members.size());
  const auto make = [&](std::int64_t batch) { return std::make_unique<Sessions>(*this, batch); };
  std::vector<std::vector<float>> values;
  {
    const auto sessions = sessions_.take(static_cast<std::int64_t>(bounded.batch), make);
    values = Pass(*this, *sessions, members, bounded).maps();
  }
  std::vector<SaliencyMap> maps;
  for (const Prepared& member : members) maps.push_back(finish(member, values[maps.size()]));
  return maps;
}

std::vector<Prepared> GroupMethod::prepare_members(std::span<const Image> images) const {
  std::vector<Prepared> members;
  for (const Image& image : images) {
    members.push_back(naming_member(members.size(), [&] { return prepare(image); }));
  }
  return members;
}

std::vector<float> GroupMethod::infer(std::span<const Prepared> prepared) const {
  const std::vector<float> batch = concatenated(prepared);
  Tensors feeds;
  feeds.add("input", view_of(batch.data(), network_shape(prepared.size(), 3)));
  Tensors found = engine("embed").run(feeds);
  const Ort::Value logits = found.take(kLogits);
  found.add("guide", guide(floats_of(logits), prepared.size(), 1));
  return floats_of(engine("segment").run(found).take("saliency"));
}

Ort::Value GroupMethod::guide(std::span<const float> logits, std::size_t groups, std::size_t pictures) const {
  const std::size_t per_group = logits.size() / groups;
  std::vector<float> totals;
  for (std::size_t group = 0; group < groups; ++group) {
    const std::vector<float> found = totals_of(logits.subspan(group * per_group, per_group), pictures);
    totals.insert(totals.end(), found.begin(), found.end());
  }
  const Shape shape = {static_cast<std::int64_t>(groups), static_cast<std::int64_t>(totals.size() / groups)};
  Tensors feeds;
  feeds.add("total", view_of(totals.data(), shape));
  return engine("consensus").run(feeds).take("guide");
}

}  // namespace salience
