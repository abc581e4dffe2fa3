#include <algorithm>
#include <iterator>

#include "engine_options.hpp"
#include "method.hpp"
#include "methods/cgd.hpp"
#include "methods/gicd.hpp"
#include "methods/lps.hpp"
#include "methods/saliency.hpp"
#include "open_session.hpp"
#include "pictures.hpp"
#include "text.hpp"
#include "translated.hpp"

namespace salience {
namespace {

constexpr const char* kMethods = "multis, arn, lps, cgd, gicd";

std::unique_ptr<const Method> make_method(Service service) {
  const std::string name = service.bundle.manifest().method;
  if (name == "multis" || name == "arn") return std::make_unique<SaliencyMethod>(std::move(service));
  if (name == "lps") return std::make_unique<PromoterMethod>(std::move(service));
  if (name == "cgd") return std::make_unique<ClampedDescentMethod>(std::move(service));
  if (name == "gicd") return std::make_unique<GroupMethod>(std::move(service));
  throw Error("method " + in_quotes(name) + " is not known: choose one of " + kMethods + ".");
}

std::string chosen_precision(const Manifest& manifest, const std::string& wanted) {
  if (wanted == "auto") return manifest.default_precision;
  if (std::ranges::find(kPrecisions, wanted) != std::end(kPrecisions)) return wanted;
  const std::vector<std::string> names(std::begin(kPrecisions), std::end(kPrecisions));
  throw Error("precision " + in_quotes(wanted) + " is not known: choose one of auto, " + joined(names) + ".");
}

// As many threads as were measured to be fastest, where that was on so many cores as there are here.
int tuned_threads(const Manifest& manifest, const std::string& precision) {
  if (!manifest.tuning || manifest.tuning->cores != available_cores()) return 0;
  return static_cast<int>(std::min<std::int64_t>(manifest.tuning->threads(precision), manifest.tuning->cores));
}

Service make_service(const std::filesystem::path& folder, const LoadOptions& options) {
  Bundle bundle(folder);
  const std::string precision = chosen_precision(bundle.manifest(), options.precision);
  EngineOptions network{options.device, options.threads, options.fused_kernels};
  network.check();
  require_provider(network);
  const EngineOptions host{"cpu", options.threads, false};
  if (network.threads == 0 && !network.on_gpu()) network.threads = tuned_threads(bundle.manifest(), precision);
  const std::size_t max_pixels = std::min(options.max_pixels, kMostPixels);
  auto environment = std::make_shared<Ort::Env>(ORT_LOGGING_LEVEL_ERROR, "salience");
  return {std::move(bundle), precision, network, host, max_pixels, std::move(environment)};
}

}  // namespace

Detector load(const std::filesystem::path& bundle, const LoadOptions& options) {
  return Detector(translated([&] { return make_method(make_service(bundle, options)); }));
}

}  // namespace salience
