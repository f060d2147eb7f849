// Gives back what each client sends, with libuv: first uv_try_write, then a queued copy of the rest.
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static char buffer[32 << 10];

struct rest {
    uv_write_t write;
    char bytes[];
};

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *out) {
    (void)handle, (void)size;
    *out = uv_buf_init(buffer, sizeof buffer);
}

static void on_closed(uv_handle_t *handle) { free(handle); }

static void on_read(uv_stream_t *client, ssize_t count, const uv_buf_t *buf);

static void on_written(uv_write_t *write, int status) {
    uv_stream_t *client = write->handle;
    free(write);
    if (status == 0 && !uv_is_closing((uv_handle_t *)client)) uv_read_start(client, on_alloc, on_read);
}

static void on_read(uv_stream_t *client, ssize_t count, const uv_buf_t *buf) {
    if (count == 0) return;
    if (count < 0) {
        uv_close((uv_handle_t *)client, on_closed);
        return;
    }
    uv_buf_t out = uv_buf_init(buf->base, count);
    int sent = uv_try_write(client, &out, 1);
    if (sent < 0) sent = 0;
    if (sent == count) return;
    // The client is not read until the kernel has taken the rest.
    uv_read_stop(client);
    struct rest *rest = malloc(sizeof *rest + count - sent);
    memcpy(rest->bytes, buf->base + sent, count - sent);
    out = uv_buf_init(rest->bytes, count - sent);
    uv_write(&rest->write, client, &out, 1, on_written);
}

static void on_client(uv_stream_t *server, int status) {
    if (status < 0) return;
    uv_tcp_t *client = malloc(sizeof *client);
    uv_tcp_init(server->loop, client);
    if (uv_accept(server, (uv_stream_t *)client) == 0) {
        uv_tcp_nodelay(client, 1);
        uv_read_start((uv_stream_t *)client, on_alloc, on_read);
    } else {
        uv_close((uv_handle_t *)client, on_closed);
    }
}

int main(int count, char **words) {
    if (count < 2) return 2;
    struct sockaddr_in addr;
    uv_tcp_t server;
    uv_tcp_init(uv_default_loop(), &server);
    uv_ip4_addr("127.0.0.1", atoi(words[1]), &addr);
    uv_tcp_bind(&server, (struct sockaddr *)&addr, 0);
    if (uv_listen((uv_stream_t *)&server, 4096, on_client)) return 1;
    return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}
