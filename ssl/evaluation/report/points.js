// Points on a canvas: by WebGL, or with the 2D context where there is none.
"use strict";

class PointCanvas {
  // `positions` Float32Array of x, y in [0, 1]; `colors` Uint8Array of red, green, blue, alpha for each point.
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl", { antialias: true, alpha: true, preserveDrawingBuffer: true });
    if (this.gl === null) {
      this.flat = canvas.getContext("2d");
    } else {
      this.prepare();
    }
    this.kind = this.gl === null ? "2d" : "webgl";
    this.count = 0;
  }

  prepare() {
    const gl = this.gl;
    const vertex = `
      attribute vec2 position; attribute vec4 color; varying vec4 tint;
      uniform vec2 scale, offset; uniform float size;
      void main() {
        gl_Position = vec4(position * scale + offset, 0.0, 1.0);
        gl_PointSize = size;
        tint = color;
      }`;
    const fragment = `
      precision mediump float; varying vec4 tint;
      void main() {
        float reach = length(gl_PointCoord - 0.5) * 2.0;
        float cover = 1.0 - smoothstep(0.75, 1.0, reach);
        if (cover <= 0.0) discard;
        gl_FragColor = vec4(tint.rgb, 1.0) * (tint.a * cover);
      }`;
    const program = gl.createProgram();
    for (const [kind, source] of [
      [gl.VERTEX_SHADER, vertex],
      [gl.FRAGMENT_SHADER, fragment],
    ]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new Error(gl.getProgramInfoLog(program));
    }
    gl.useProgram(program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.places = Object.fromEntries(["scale", "offset", "size"].map((name) => [name, gl.getUniformLocation(program, name)]));
    this.buffers = {};
    for (const [name, size, type, whole] of [
      ["position", 2, gl.FLOAT, false],
      ["color", 4, gl.UNSIGNED_BYTE, true],
    ]) {
      this.buffers[name] = gl.createBuffer();
      const place = gl.getAttribLocation(program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, size, type, whole, 0, 0);
    }
  }

  setPoints(positions, colors) {
    this.positions = positions;
    this.colors = colors;
    this.count = positions.length / 2;
    for (const [name, values] of this.gl === null ? [] : [["position", positions], ["color", colors]]) {
      this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.buffers[name]);
      this.gl.bufferData(this.gl.ARRAY_BUFFER, values, this.gl.STATIC_DRAW);
    }
  }

  // A point at (x, y) is drawn at pixel (x * zoom + left, y * zoom + top) of the canvas.
  draw({ zoom, left, top, size }) {
    const { width, height } = this.canvas;
    if (this.gl !== null) {
      const gl = this.gl;
      gl.viewport(0, 0, width, height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.uniform2f(this.places.scale, (2 * zoom) / width, (-2 * zoom) / height);
      gl.uniform2f(this.places.offset, (2 * left) / width - 1, 1 - (2 * top) / height);
      gl.uniform1f(this.places.size, size);
      gl.drawArrays(gl.POINTS, 0, this.count);
      return;
    }
    this.flat.clearRect(0, 0, width, height);
    for (let i = 0; i < this.count; i += 1) {
      const x = this.positions[2 * i] * zoom + left;
      const y = this.positions[2 * i + 1] * zoom + top;
      if (x < -size || y < -size || x > width + size || y > height + size) {
        continue;
      }
      const [red, green, blue, alpha] = this.colors.subarray(4 * i, 4 * i + 4);
      this.flat.fillStyle = `rgba(${red}, ${green}, ${blue}, ${alpha / 255})`;
      this.flat.beginPath();
      this.flat.arc(x, y, size / 2, 0, 7);
      this.flat.fill();
    }
  }
}
