// salience-service BUNDLE PORT: POST a picture as PPM (P6) to /predict, get its saliency map as PGM.
#include <arpa/inet.h>
#include <netinet/in.h>

#include <atomic>
#include <csignal>
#include <exception>
#include <iostream>
#include <list>
#include <salience/salience.hpp>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>

#include "http.hpp"

namespace {

constexpr std::size_t kBodyBytes = std::size_t{64} << 20;
constexpr std::size_t kConnections = 32;

salience::Image parse_ppm(const std::string& body) {
  std::istringstream header(body.substr(0, 64));
  std::string magic;
  std::size_t width = 0, height = 0, largest = 0;
  if (!(header >> magic >> width >> height >> largest) || magic != "P6" || largest != 255 || header.get() < 0) {
    refuse(400, "The body is no picture, expected PPM: P6, width, height and 255, without comments.");
  }
  const std::size_t pixels = body.size() - static_cast<std::size_t>(header.tellg());
  const bool fits = width > 0 && height > 0 && width <= pixels / height && 3 * width * height == pixels;
  if (!fits) refuse(400, "The picture is cut off or too long, expected 3 bytes for each of width * height pixels.");
  return {reinterpret_cast<const std::uint8_t*>(body.data() + body.size() - pixels), height, width, 0};
}

Response answer(const salience::Detector& detector, Connection& connection) {
  try {
    const std::string body = connection.read("POST", "/predict", kBodyBytes);
    const salience::SaliencyMap map = detector.predict(parse_ppm(body));
    std::string picture = "P5\n" + std::to_string(map.width()) + " " + std::to_string(map.height()) + "\n255\n";
    for (const std::uint8_t level : map.grey()) picture += static_cast<char>(level);
    return {200, std::move(picture), "image/x-portable-graymap"};
  } catch (const Response& refusal) {
    return refusal;
  } catch (const salience::ImageError& error) {
    return {400, std::string(error.what()) + "\n"};
  } catch (const std::exception& error) {
    return {500, std::string(error.what()) + "\n"};
  }
}

// A connection with the thread that serves it.
struct Client {
  Client(const salience::Detector& detector, int socket)
      : connection(socket), thread([this, &detector] {
          connection.write(answer(detector, connection));
          done = true;
        }) {}

  Connection connection;
  std::atomic<bool> done = false;
  std::jthread thread;
};

int listen_on(std::uint16_t port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      bind(listener, generic, size) != 0 || listen(listener, 64) != 0 || getsockname(listener, generic, &size) != 0) {
    throw std::system_error(errno, std::generic_category(), "port " + std::to_string(port));
  }
  std::cout << "http://127.0.0.1:" << ntohs(address.sin_port) << "/predict" << std::endl;
  return listener;
}

bool told_to_stop() {
  sigset_t pending;
  return sigpending(&pending) == 0 && (sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1);
}

void serve(const salience::Detector& detector, int listener) {
  std::list<Client> clients;
  while (!told_to_stop()) {
    clients.remove_if([](const Client& client) { return client.done.load(); });
    pollfd ready{listener, POLLIN, 0};
    const int socket = poll(&ready, 1, 100) > 0 ? accept4(listener, nullptr, nullptr, SOCK_CLOEXEC) : -1;
    if (socket < 0) continue;
    if (clients.size() < kConnections)
      clients.emplace_back(detector, socket);
    else
      Connection(socket).write({503, "Too many pictures at once, expected at most 32; try again.\n"});
  }
  for (const Client& client : clients) client.connection.stop();
}

}  // namespace

int main(int count, char** values) {
  // Blocked in every thread: the loop looks whether they are pending.
  sigset_t stops;
  sigemptyset(&stops);
  sigaddset(&stops, SIGTERM);
  sigaddset(&stops, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stops, nullptr);
  if (count != 3) {
    std::cerr << "usage: salience-service BUNDLE PORT (0 for a free one)\n";
    return 2;
  }
  try {
    const salience::Detector detector = salience::load(values[1]);
    const int listener = listen_on(static_cast<std::uint16_t>(std::stoul(values[2])));
    serve(detector, listener);
    close(listener);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
