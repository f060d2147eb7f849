/* An echo server with libevent's bufferevents. The plain form frees the bufferevent at the client's
 * EOF; with -DDRAIN it frees it once the output is written. Neither pauses reading. */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>

static void on_read(struct bufferevent *client, void *arg)
{
	(void)arg;
	bufferevent_write_buffer(client, bufferevent_get_input(client));
}

static void on_written(struct bufferevent *client, void *arg)
{
	(void)arg;
	bufferevent_free(client);
}

static void on_event(struct bufferevent *client, short events, void *arg)
{
#ifdef DRAIN
	if ((events & BEV_EVENT_EOF) && evbuffer_get_length(bufferevent_get_output(client)) > 0) {
		bufferevent_setcb(client, NULL, on_written, on_event, arg);
		return;
	}
#endif
	if (events & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
		on_written(client, arg);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *addr,
	int length, void *arg)
{
	struct bufferevent *client = bufferevent_socket_new(evconnlistener_get_base(listener), fd,
		BEV_OPT_CLOSE_ON_FREE);

	(void)addr;
	(void)length;
	bufferevent_setcb(client, on_read, NULL, on_event, arg);
	bufferevent_enable(client, EV_READ | EV_WRITE);
}

int main(int argc, char **argv)
{
	struct event_base *base = event_base_new();
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_port = htons(argc > 1 ? atoi(argv[1]) : 0),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};

	signal(SIGPIPE, SIG_IGN);
	if (!evconnlistener_new_bind(base, on_accept, NULL,
		LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, -1, (struct sockaddr *)&addr, sizeof(addr)))
		return 1;
	return event_base_dispatch(base);
}
