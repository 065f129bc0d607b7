// Threads that share numbered tasks with the caller. A child of fork starts its own; a call while the pool is busy runs alone.
#pragma once
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

class Pool {
 public:
  using Task = std::function<void(int)>;

  // Runs task(0) ... task(count - 1), in any order, on at most `threads` threads.
  static void run(int count, int threads, const Task& task) {
    if (threads > 1 && count > 1) {
      Pool& pool = instance();
      if (pool.entry_.try_lock()) {
        std::lock_guard<std::mutex> entry(pool.entry_, std::adopt_lock);
        pool.share(count, threads < count ? threads : count, task);
        return;
      }
    }
    for (int i = 0; i < count; i++) task(i);
  }

 private:
  std::mutex entry_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> workers_;
  const Task* task_ = nullptr;
  std::atomic<int> next_{0}, wanted_{0}, running_{0};
  int count_ = 0;

  // Never destroyed: at exit, and in a child of fork, there may be no thread left to join.
  static Pool& instance() {
    static std::atomic<Pool*> pool{nullptr};
    static const int hook = pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr); });
    (void)hook;
    Pool* current = pool.load();
    if (!current) {
      Pool* fresh = new Pool;
      if (pool.compare_exchange_strong(current, fresh)) return *fresh;
      delete fresh;
    }
    return *current;
  }

  void work() {
    for (int i; (i = next_.fetch_add(1)) < count_;) (*task_)(i);
  }

  // To wake a sleeping thread takes as long as this waits, and the next tasks often follow at once.
  template <typename Ready>
  static void linger(Ready ready) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(60);
    while (!ready() && std::chrono::steady_clock::now() < end) {
    }
  }

  void loop() {
    const auto wanted = [this] { return wanted_ > 0; };
    for (;;) {
      linger(wanted);
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, wanted);
      wanted_--, running_++;
      lock.unlock();
      work();
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  void share(int count, int threads, const Task& task) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      try {
        while ((int)workers_.size() < threads - 1) {
          workers_.emplace_back([this] { loop(); });
          workers_.back().detach();
        }
      } catch (const std::exception&) {  // no more threads to be had: those there are will do
      }
      task_ = &task, count_ = count, next_ = 0;
      wanted_ = threads - 1 < (int)workers_.size() ? threads - 1 : (int)workers_.size();
    }
    wake_.notify_all();
    work();
    const auto finished = [this] { return running_ == 0; };
    linger(finished);
    std::unique_lock<std::mutex> lock(mutex_);
    wanted_ = 0;
    done_.wait(lock, finished);
  }
};
