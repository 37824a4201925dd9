-- What few rows are is listed without a look at all the others. Both are written seldom.

CREATE INDEX deliveries_canceled ON deliveries (event_id, endpoint_id) WHERE state = 'canceled';

CREATE INDEX tasks_ever_overdue ON tasks (n) WHERE overdue = 1;
