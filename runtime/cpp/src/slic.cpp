#include "slic.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "colour.hpp"
#include "connected_labels.hpp"
#include "salience/errors.hpp"
#include "text.hpp"

namespace salience {
namespace {

constexpr int kIterations = 10;
constexpr std::int32_t kNone = -1;

// Places start, start + step, ... along one side of a picture.
struct Places {
  std::size_t start = 0;
  std::size_t step = 1;
};

struct Grid {
  Places rows;
  Places columns;
};

struct Centre {
  double row = 0;
  double column = 0;
  Lab colour{};
  std::size_t pixels = 0;
};

// First and last + 1 along one side.
struct Range {
  std::size_t first;
  std::size_t last;
};

Places places_of(double step) {
  return {static_cast<std::size_t>(std::floor(step / 2)), static_cast<std::size_t>(std::nearbyint(step))};
}

// About `count` points as far apart in rows as in columns; a side too short for two has one, in its middle.
Grid regular_grid(std::size_t height, std::size_t width, std::size_t count) {
  const double points = static_cast<double>(count);
  const double pixels = static_cast<double>(height * width);
  if (pixels <= points) return {};
  const double step = std::pow(pixels / points, 0.5);
  const double rows = static_cast<double>(height);
  const double columns = static_cast<double>(width);
  if (std::min(rows, columns) >= step) return {places_of(step), places_of(step)};
  if (height <= width) return {places_of(rows), places_of(columns / points)};
  return {places_of(rows / points), places_of(columns)};
}

// Places at most two steps from the centre.
Range window(double centre, std::size_t step, std::size_t side) {
  const double reach = static_cast<double>(2 * step);
  return {static_cast<std::size_t>(std::max(centre - reach, 0.0)),
          static_cast<std::size_t>(std::min(centre + reach + 1, static_cast<double>(side)))};
}

// One row of the picture, and of what was found so far.
struct Row {
  const double* lightness;
  const double* green_red;
  const double* blue_yellow;
  const double* across;
  double* distances;
  std::int32_t* labels;
};

// A centre seen from one row: its squared distance in rows, what squared pixels weigh, its colour and label.
struct Candidate {
  double down;
  double spatial_weight;
  Lab colour;
  std::int32_t label;
};

// Gives the pixels of a row that are nearer to this centre than to those before it its label. Without branches, so
// that compilers can take several pixels at once.
void keep_nearer(const Row& row, Range columns, const Candidate& candidate) {
  for (std::size_t x = columns.first; x < columns.last; ++x) {
    const double l = row.lightness[x] - candidate.colour[0];
    const double a = row.green_red[x] - candidate.colour[1];
    const double b = row.blue_yellow[x] - candidate.colour[2];
    const double place = (candidate.down + row.across[x]) * candidate.spatial_weight;
    const double distance = place + (l * l + a * a + b * b);
    const bool nearer = row.distances[x] > distance;
    row.labels[x] = nearer ? candidate.label : row.labels[x];
    row.distances[x] = nearer ? distance : row.distances[x];
  }
}

// The k-means of SLIC: each centre looks at the pixels around it alone.
class Clustering {
 public:
  Clustering(LabPlanes image, std::size_t height, std::size_t width, std::size_t count);

  // Gives every pixel its nearest centre; of equally near ones the first.
  void assign();
  // Moves every centre to the mean of its pixels.
  void update();

  std::size_t size() const { return centres_.size(); }
  std::vector<std::int32_t>& labels() { return labels_; }

 private:
  void assign_to(std::int32_t label);

  LabPlanes image_;
  std::size_t height_;
  std::size_t width_;
  Grid windows_;
  double spatial_weight_ = 0;
  std::vector<Centre> centres_;
  std::vector<std::int32_t> labels_;
  std::vector<double> distances_;
  // Squared distances in columns from the centre in hand.
  std::vector<double> across_;
};

Clustering::Clustering(LabPlanes image, std::size_t height, std::size_t width, std::size_t count)
    : image_(std::move(image)),
      height_(height),
      width_(width),
      labels_(height * width, kNone),
      distances_(height * width),
      across_(width) {
  const Grid grid = regular_grid(height, width, count);
  for (std::size_t row = grid.rows.start; row < height; row += grid.rows.step) {
    for (std::size_t column = grid.columns.start; column < width; column += grid.columns.step) {
      // The colour is 0 at first, so that the first labels depend on place alone.
      centres_.push_back({static_cast<double>(row), static_cast<double>(column), {}, 1});
    }
  }
  windows_ = regular_grid(height, width, centres_.size());
  // The reference holds the step, and so its square, in single precision.
  const auto step = static_cast<float>(std::max(grid.rows.step, grid.columns.step));
  spatial_weight_ = 1.0 / static_cast<double>(step * step);
}

void Clustering::assign() {
  std::fill(distances_.begin(), distances_.end(), std::numeric_limits<double>::max());
  for (std::size_t i = 0; i < centres_.size(); ++i) {
    if (centres_[i].pixels > 0) assign_to(static_cast<std::int32_t>(i));
  }
}

void Clustering::assign_to(std::int32_t label) {
  const Centre& centre = centres_[static_cast<std::size_t>(label)];
  const Range rows = window(centre.row, windows_.rows.step, height_);
  const Range columns = window(centre.column, windows_.columns.step, width_);
  for (std::size_t x = columns.first; x < columns.last; ++x) {
    const double difference = centre.column - static_cast<double>(x);
    across_[x] = difference * difference;
  }
  for (std::size_t y = rows.first; y < rows.last; ++y) {
    const double difference = centre.row - static_cast<double>(y);
    const std::size_t offset = y * width_;
    const Row row{image_[0].data() + offset, image_[1].data() + offset, image_[2].data() + offset, across_.data(),
                  distances_.data() + offset, labels_.data() + offset};
    keep_nearer(row, columns, {difference * difference, spatial_weight_, centre.colour, label});
  }
}

void Clustering::update() {
  std::fill(centres_.begin(), centres_.end(), Centre{});
  for (std::size_t y = 0; y < height_; ++y) {
    for (std::size_t x = 0; x < width_; ++x) {
      const std::size_t i = y * width_ + x;
      Centre& centre = centres_[static_cast<std::size_t>(labels_[i])];
      ++centre.pixels;
      centre.row += static_cast<double>(y);
      centre.column += static_cast<double>(x);
      for (std::size_t channel = 0; channel < 3; ++channel) centre.colour[channel] += image_[channel][i];
    }
  }
  for (Centre& centre : centres_) {
    if (centre.pixels == 0) continue;
    const auto pixels = static_cast<double>(centre.pixels);
    centre.row /= pixels;
    centre.column /= pixels;
    for (double& value : centre.colour) value /= pixels;
  }
}

ComponentSizes component_sizes(std::size_t pixels, std::size_t superpixels) {
  const double mean = static_cast<double>(pixels) / static_cast<double>(superpixels);
  return {static_cast<std::size_t>(0.5 * mean), static_cast<std::size_t>(3 * mean)};
}

}  // namespace

std::vector<std::int32_t> slic(std::span<const std::uint8_t> image, std::size_t height, std::size_t width,
                               std::size_t count, double compactness) {
  LabPlanes planes = lab_from_stretched_rgb(image);
  for (auto& plane : planes) {
    for (double& value : plane) value *= 1.0 / compactness;
  }
  Clustering clustering(std::move(planes), height, width, count);
  clustering.assign();
  if (std::ranges::find(clustering.labels(), kNone) != clustering.labels().end()) {
    throw Error("compactness " + general(compactness) +
                ": distances in colour overflow, expected a number well above 0; 1 to 100 are usual.");
  }
  for (int i = 1; i < kIterations; ++i) {
    clustering.update();
    clustering.assign();
  }
  return connected_labels(clustering.labels(), height, width, component_sizes(height * width, clustering.size()));
}

}  // namespace salience
