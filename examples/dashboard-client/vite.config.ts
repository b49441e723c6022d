import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [react()],
  // Relative addresses: the built page works under any path of any static server.
  base: "./",
  server: { port: 5173, strictPort: true },
});
