// As much of HTTP/1.1 as one request with a bounded body and one response need, over a POSIX socket.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <string>
#include <string_view>

struct Response {
  int status = 200;
  std::string body;
  std::string type = "text/plain";
};

// A refusal is thrown, and becomes the response.
[[noreturn]] inline void refuse(int status, const std::string& sentence) { throw Response{status, sentence + "\n"}; }

class Connection {
 public:
  explicit Connection(int socket) : socket_(socket) {}
  ~Connection() { close(socket_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Lets what is being read end.
  void stop() const { shutdown(socket_, SHUT_RD); }

  // The body of a request of `method` to `path`.
  std::string read(std::string_view method, std::string_view path, std::size_t limit_bytes) {
    std::size_t end = std::string::npos;
    while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
      if (buffer_.size() > kHeaderBytes) refuse(400, "The header is too long, expected at most 16 KB.");
      receive();
    }
    const std::string header = buffer_.substr(0, end + 2);
    const std::size_t space = header.find(' '), next = header.find(' ', space + 1);
    if (next == std::string::npos) refuse(400, "The request line is damaged, expected METHOD PATH HTTP/1.1.");
    if (header.substr(space + 1, next - space - 1) != path) refuse(404, "Nothing is there; use /predict.");
    if (header.substr(0, space) != method) refuse(405, "The method does not fit, expected POST.");
    const std::size_t length = length_of(header, limit_bytes);
    if (!value(header, "expect").empty()) send("HTTP/1.1 100 Continue\r\n\r\n");
    while (buffer_.size() < end + 4 + length) receive();
    return buffer_.substr(end + 4, length);
  }

  void write(const Response& response) {
    // A status may go without its phrase.
    send("HTTP/1.1 " + std::to_string(response.status) + " \r\nContent-Type: " + response.type +
         "\r\nContent-Length: " + std::to_string(response.body.size()) + "\r\nConnection: close\r\n\r\n");
    send(response.body);
    shutdown(socket_, SHUT_WR);
    // What a refused client still sends is read for a while, so that it sees the response and not a reset.
    deadline_ = std::min(deadline_, Clock::now() + std::chrono::milliseconds(300));
    char rest[4096];
    while (wait(POLLIN) && recv(socket_, rest, sizeof rest, 0) > 0) {
    }
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t kHeaderBytes = 16 << 10;

  // Whether the socket is ready before the deadline.
  bool wait(short what) const {
    pollfd ready{socket_, what, 0};
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now()).count();
    return left > 0 && poll(&ready, 1, static_cast<int>(left)) > 0;
  }

  void receive() {
    char block[65536];
    const ssize_t count = wait(POLLIN) ? recv(socket_, block, sizeof block, 0) : 0;
    if (count <= 0) refuse(400, "The request ended early, expected the whole of it within 30 seconds.");
    buffer_.append(block, static_cast<std::size_t>(count));
  }

  void send(std::string_view text) const {
    while (!text.empty() && wait(POLLOUT)) {
      const ssize_t count = ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
      if (count <= 0) return;
      text.remove_prefix(static_cast<std::size_t>(count));
    }
  }

  static std::string value(const std::string& header, std::string_view name) {
    std::string folded = header;
    std::ranges::transform(folded, folded.begin(), [](unsigned char letter) { return std::tolower(letter); });
    const std::size_t at = folded.find("\r\n" + std::string(name) + ":");
    if (at == std::string::npos) return {};
    const std::size_t start = folded.find_first_not_of(" \t", at + name.size() + 3);
    return folded.substr(start, folded.find("\r\n", start) - start);
  }

  static std::size_t length_of(const std::string& header, std::size_t limit_bytes) {
    const std::string text = value(header, "content-length");
    if (text.empty()) refuse(411, "The length is missing, expected Content-Length.");
    std::size_t length = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
    if (error == std::errc::invalid_argument || end != text.data() + text.size()) {
      refuse(400, "Content-Length is damaged, expected a number.");
    }
    if (error != std::errc() || length > limit_bytes) refuse(413, "The picture is too large, expected at most 64 MB.");
    return length;
  }

  int socket_;
  std::string buffer_;
  Clock::time_point deadline_ = Clock::now() + std::chrono::seconds(30);
};
