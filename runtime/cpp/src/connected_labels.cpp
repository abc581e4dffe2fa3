#include "connected_labels.hpp"

#include <array>
#include <utility>

namespace salience {
namespace {

constexpr std::int32_t kNone = -1;

// Breadth-first walks through the components of a label map.
class ComponentWalk {
 public:
  ComponentWalk(std::span<const std::int32_t> labels, std::size_t height, std::size_t width)
      : labels_(labels), height_(height), width_(width), numbers_(labels.size(), kNone) {}

  bool visited(std::size_t pixel) const { return numbers_[pixel] != kNone; }
  std::size_t size() const { return component_.size(); }
  std::vector<std::int32_t>& numbers() { return numbers_; }

  // Numbers the component of a pixel, `most` pixels of it at the utmost; what neighbour it met last, or `number`.
  std::int32_t grow(std::size_t pixel, std::int32_t number, std::size_t most);
  // Gives the component in hand another number.
  void renumber(std::int32_t number);

 private:
  struct Neighbours {
    std::array<std::size_t, 4> pixels;
    std::size_t count = 0;
  };

  Neighbours neighbours(std::size_t pixel) const;
  void add(std::size_t pixel, std::int32_t number);

  std::span<const std::int32_t> labels_;
  std::size_t height_;
  std::size_t width_;
  std::vector<std::int32_t> numbers_;
  std::vector<std::size_t> component_;
};

ComponentWalk::Neighbours ComponentWalk::neighbours(std::size_t pixel) const {
  const std::size_t row = pixel / width_;
  const std::size_t column = pixel % width_;
  Neighbours found{};
  // The order decides which pixels a component that is taken apart keeps, and which neighbour is met last.
  if (column + 1 < width_) found.pixels[found.count++] = pixel + 1;
  if (column > 0) found.pixels[found.count++] = pixel - 1;
  if (row + 1 < height_) found.pixels[found.count++] = pixel + width_;
  if (row > 0) found.pixels[found.count++] = pixel - width_;
  return found;
}

void ComponentWalk::add(std::size_t pixel, std::int32_t number) {
  numbers_[pixel] = number;
  component_.push_back(pixel);
}

std::int32_t ComponentWalk::grow(std::size_t pixel, std::int32_t number, std::size_t most) {
  std::int32_t met = number;
  component_.clear();
  add(pixel, number);
  for (std::size_t i = 0; i < component_.size() && component_.size() < most; ++i) {
    const Neighbours around = neighbours(component_[i]);
    for (std::size_t k = 0; k < around.count && component_.size() < most; ++k) {
      const std::size_t other = around.pixels[k];
      if (!visited(other)) {
        if (labels_[other] == labels_[pixel]) add(other, number);
      } else if (numbers_[other] != number) {
        met = numbers_[other];
      }
    }
  }
  return met;
}

void ComponentWalk::renumber(std::int32_t number) {
  for (const std::size_t pixel : component_) numbers_[pixel] = number;
}

}  // namespace

std::vector<std::int32_t> connected_labels(std::span<const std::int32_t> labels, std::size_t height,
                                           std::size_t width, ComponentSizes sizes) {
  ComponentWalk walk(labels, height, width);
  std::int32_t next = 0;
  for (std::size_t pixel = 0; pixel < labels.size(); ++pixel) {
    if (walk.visited(pixel)) continue;
    const std::int32_t neighbour = walk.grow(pixel, next, sizes.most);
    if (walk.size() < sizes.least) {
      walk.renumber(neighbour);
    } else {
      ++next;
    }
  }
  return std::move(walk.numbers());
}

}  // namespace salience
