PRAGMA page_size = 16384;
PRAGMA journal_mode = OFF;
PRAGMA cache_size = -400000;
CREATE TABLE document (id INTEGER PRIMARY KEY, author INTEGER, body BLOB);
WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 7000)
INSERT INTO document SELECT i, (i * 7919) % 97, zeroblob(15000) FROM n;
CREATE INDEX by_author ON document (author);
-- Most requests go to one document in sixteen.
WITH RECURSIVE n(i, d) AS (VALUES (1, 1) UNION ALL SELECT i + 1, (d * 1103 + 12345) % 65536 FROM n WHERE i < 4000)
SELECT sum(length(body)) FROM n JOIN document ON id = 1 + (d % 437) * 16;
UPDATE document SET body = zeroblob(15000) WHERE author = 13;
SELECT count(*), sum(substr(body, 1, 1) = x'00') FROM document WHERE author < 20;
DELETE FROM document WHERE author BETWEEN 50 AND 60;
WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 300)
INSERT INTO document SELECT 10000 + i, 5, zeroblob(15000) FROM n;
SELECT author, count(*) FROM document GROUP BY author ORDER BY 2 DESC LIMIT 3;
