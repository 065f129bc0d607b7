// One clock for all videos: every one is at the same share of its turn.

const SECONDS = 3; // of a turn
const JUMP = 0.2; // seconds off before a video is moved; less is made good by its speed
const GAIN = 4;
const PATIENCE = 400; // milliseconds that a new turn waits for the slowest video

const clock = {
  videos: new Set(),
  phase: 0, // of the turn, in [0, 1)
  playing: false,
  onchange: () => {},

  add(video) {
    this.videos.add(video);
    video.onloadedmetadata = () => this.put(video);
  },

  remove(video) {
    this.videos.delete(video);
    video.onloadedmetadata = null;
  },

  play() {
    this.playing = true;
    this.onchange();
    this.start(this.phase);
  },

  pause() {
    this.playing = false;
    this.seek(this.phase);
  },

  /** Go to a share of the turn; all videos show the same frame then. */
  seek(phase) {
    this.phase = Math.min(Math.max(phase, 0), 0.9999);
    this.onchange();
    if (this.playing) return this.start(this.phase);
    for (const video of this.videos) this.put(video);
  },

  /** Bring all videos to the phase, and let them go together. */
  async start(phase) {
    this.phase = phase;
    const turn = (this.turn = {}); // what an earlier start still awaits is void
    const arrivals = [...this.videos].map((video) => this.put(video));
    await Promise.race([Promise.all(arrivals), new Promise((resolve) => setTimeout(resolve, PATIENCE))]);
    if (turn !== this.turn || !this.playing) return;
    this.begun = performance.now() - phase * SECONDS * 1000;
    requestAnimationFrame((now) => this.tick(now, turn));
  },

  tick(now, turn) {
    if (turn !== this.turn || !this.playing) return;
    const phase = Math.max(0, now - this.begun) / (SECONDS * 1000);
    if (phase >= 1) return void this.start(0);
    this.phase = phase;
    for (const video of this.videos) this.follow(video);
    this.onchange();
    requestAnimationFrame((later) => this.tick(later, turn));
  },

  /** Speed up or slow down a playing video that is late or early. */
  follow(video) {
    if (!video.duration || video.seeking || video.readyState < 2) return;
    const late = this.phase * video.duration - video.currentTime;
    if (Math.abs(late) > JUMP) video.currentTime = this.phase * video.duration;
    const speed = (video.duration / SECONDS) * (1 + GAIN * late);
    video.playbackRate = Math.min(Math.max(speed, 0.25), 4);
    if (video.paused) video.play().catch(() => {});
  },

  /** Halt a video at the phase; a promise that it is there. */
  put(video) {
    if (!video.duration) return Promise.resolve();
    video.pause();
    return new Promise((resolve) => {
      video.addEventListener("seeked", resolve, { once: true });
      video.currentTime = this.phase * video.duration;
    });
  },
};

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && clock.playing) clock.start(clock.phase);
});
