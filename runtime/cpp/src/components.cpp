#include "components.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace salience {
namespace {

// A horizontal run of a mask: columns `left` to `right` of a row, `right` exclusive.
struct Run {
  std::size_t row;
  std::size_t left;
  std::size_t right;
};

using Runs = std::vector<Run>;

Runs runs_of(std::span<const std::uint8_t> mask, std::size_t width) {
  Runs runs;
  for (std::size_t row = 0; row * width < mask.size(); ++row) {
    const std::span<const std::uint8_t> pixels = mask.subspan(row * width, width);
    const auto is_inside = [](std::uint8_t value) { return value != 0; };
    for (auto right = pixels.begin(); right != pixels.end();) {
      const auto left = std::find_if(right, pixels.end(), is_inside);
      right = std::find_if_not(left, pixels.end(), is_inside);
      if (left == right) break;
      runs.push_back({row, static_cast<std::size_t>(left - pixels.begin()),
                      static_cast<std::size_t>(right - pixels.begin())});
    }
  }
  return runs;
}

// Disjoint sets of runs, each with its first run as its root.
class Sets {
 public:
  explicit Sets(std::size_t count) : parents_(count) {
    for (std::size_t at = 0; at < count; ++at) parents_[at] = at;
  }

  std::size_t root(std::size_t at) {
    while (parents_[at] != at) {
      parents_[at] = parents_[parents_[at]];
      at = parents_[at];
    }
    return at;
  }

  void join(std::size_t one, std::size_t other) {
    const auto [low, high] = std::minmax({root(one), root(other)});
    parents_[high] = low;
  }

 private:
  std::vector<std::size_t> parents_;
};

// Runs that touch, also at corners, are of one set.
Sets connected(const Runs& runs) {
  Sets sets(runs.size());
  std::size_t above = 0;
  for (std::size_t at = 0; at < runs.size(); ++at) {
    const Run& run = runs[at];
    const auto is_before = [&run](const Run& other) {
      return other.row + 1 < run.row || (other.row + 1 == run.row && other.right < run.left);
    };
    while (is_before(runs[above])) ++above;
    // The last run that touches may touch the next run of this row as well, so `above` stays.
    for (std::size_t other = above; runs[other].row < run.row && runs[other].left <= run.right; ++other) {
      sets.join(at, other);
    }
  }
  return sets;
}

void include(Box& box, const Run& run) {
  box.left = std::min(box.left, run.left);
  box.bottom = run.row + 1;
  box.right = std::max(box.right, run.right);
}

}  // namespace

std::optional<Box> box_of_components(std::span<const std::uint8_t> mask, std::size_t width, double least_share) {
  const Runs runs = runs_of(mask, width);
  if (runs.empty()) return std::nullopt;
  Sets sets = connected(runs);
  std::vector<std::size_t> areas(runs.size());
  for (std::size_t at = 0; at < runs.size(); ++at) areas[sets.root(at)] += runs[at].right - runs[at].left;
  const double least = least_share * static_cast<double>(*std::ranges::max_element(areas));
  std::optional<Box> box;
  for (std::size_t at = 0; at < runs.size(); ++at) {
    if (static_cast<double>(areas[sets.root(at)]) < least) continue;
    if (!box) box = Box{runs[at].row, runs[at].left, 0, 0};
    include(*box, runs[at]);
  }
  return box;
}

}  // namespace salience
