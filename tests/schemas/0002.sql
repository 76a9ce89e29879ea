BEGIN TRANSACTION;
CREATE TABLE bookings (
	id TEXT NOT NULL, 
	live BOOLEAN NOT NULL, 
	payload TEXT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE claims (
	device TEXT NOT NULL, 
	atom INTEGER NOT NULL, 
	lease_id TEXT NOT NULL, 
	CONSTRAINT claims_pkey PRIMARY KEY (device, atom), 
	CONSTRAINT claims_lease FOREIGN KEY(lease_id) REFERENCES leases (id)
);
INSERT INTO "claims" VALUES('SIMULATED-schema-0',0,'1ea5e0001ea5e0001ea5e0001ea5e000');
CREATE TABLE devices (
	id TEXT NOT NULL, 
	node TEXT NOT NULL, 
	payload TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "devices" VALUES('SIMULATED-schema-0','schema','{"type":"DeviceStored","device":{"id":"SIMULATED-schema-0","node":"schema","index":0,"model":"","memory":17179869184,"mode":"exclusive","atoms":1,"parent":null,"capability":null,"simulated":true},"status":{"health":"ok","admin":"open","foreign":false,"quarantined":false,"present":true,"note":""}}');
CREATE TABLE entries (
	id TEXT NOT NULL, 
	state TEXT NOT NULL, 
	hub TEXT NOT NULL, 
	username TEXT NOT NULL, 
	servername TEXT NOT NULL, 
	payload TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "entries" VALUES('1ea5e0001ea5e0001ea5e0001ea5e000','bound','hub','alice','','{"type":"EntryStored","entry":{"id":"1ea5e0001ea5e0001ea5e0001ea5e000","key":{"hub":"hub","user":"alice","server":""},"groups":["lab"],"request":{"count":1,"model":null,"min_memory":0,"sharing":"exclusive","length":14400.0,"cpu":1.0,"memory":67108864,"min_capability":null,"node":null,"pool":null,"devices":[]},"profile":"gpu","boot_id":"an-older-hub","state":"bound","submitted_at":1700000000.0,"seq":1,"lease_id":"1ea5e0001ea5e0001ea5e0001ea5e000"}}');
INSERT INTO "entries" VALUES('e4724000e4724000e4724000e4724000','queued','hub','bob','','{"type":"EntryStored","entry":{"id":"e4724000e4724000e4724000e4724000","key":{"hub":"hub","user":"bob","server":""},"groups":["lab"],"request":{"count":1,"model":null,"min_memory":0,"sharing":"exclusive","length":14400.0,"cpu":1.0,"memory":67108864,"min_capability":null,"node":null,"pool":null,"devices":[]},"profile":"gpu","boot_id":"an-older-hub","state":"queued","submitted_at":1700000000.0,"seq":2,"lease_id":null}}');
CREATE TABLE gpuspawner_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT gpuspawner_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "gpuspawner_version" VALUES('0002');
CREATE TABLE journal (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	time FLOAT NOT NULL, 
	epoch BIGINT NOT NULL, 
	kind TEXT NOT NULL, 
	subject TEXT NOT NULL, 
	payload TEXT NOT NULL
);
INSERT INTO "journal" VALUES(1,1700000002.0,7,'NodeStored','schema','{"type":"NodeStored","node":{"name":"schema","memory":8589934592,"cpus":2.0,"boot_id":"boot","state":"up","admin":"open"}}');
INSERT INTO "journal" VALUES(2,1700000002.0,7,'DeviceStored','SIMULATED-schema-0','{"type":"DeviceStored","device":{"id":"SIMULATED-schema-0","node":"schema","index":0,"model":"","memory":17179869184,"mode":"exclusive","atoms":1,"parent":null,"capability":null,"simulated":true},"status":{"health":"ok","admin":"open","foreign":false,"quarantined":false,"present":true,"note":""}}');
INSERT INTO "journal" VALUES(3,1700000002.0,7,'EntryStored','1ea5e0001ea5e0001ea5e0001ea5e000','{"type":"EntryStored","entry":{"id":"1ea5e0001ea5e0001ea5e0001ea5e000","key":{"hub":"hub","user":"alice","server":""},"groups":["lab"],"request":{"count":1,"model":null,"min_memory":0,"sharing":"exclusive","length":14400.0,"cpu":1.0,"memory":67108864,"min_capability":null,"node":null,"pool":null,"devices":[]},"profile":"gpu","boot_id":"an-older-hub","state":"queued","submitted_at":1700000000.0,"seq":1,"lease_id":null}}');
INSERT INTO "journal" VALUES(4,1700000002.0,7,'LeaseStored','0fe500000fe500000fe500000fe50000','{"type":"LeaseStored","lease":{"id":"0fe500000fe500000fe500000fe50000","key":{"hub":"hub","user":"carol","server":""},"groups":["lab"],"request":{"count":1,"model":null,"min_memory":0,"sharing":"exclusive","length":14400.0,"cpu":1.0,"memory":67108864,"min_capability":null,"node":null,"pool":null,"devices":[]},"profile":"gpu","node":"schema","claims":[],"boot_id":"an-older-hub","state":"released","target":"gone","container_id":null,"granted_at":1700000001.0,"moved_at":1700000001.0,"ends_at":1700014401.0,"released_at":1700000000.0,"epoch":7,"reason":"stopped","note":"","warned":false,"uncertain":false,"quarantined":false}}');
INSERT INTO "journal" VALUES(5,1700000002.0,7,'LeaseStored','1ea5e0001ea5e0001ea5e0001ea5e000','{"type":"LeaseStored","lease":{"id":"1ea5e0001ea5e0001ea5e0001ea5e000","key":{"hub":"hub","user":"alice","server":""},"groups":["lab"],"request":{"count":1,"model":null,"min_memory":0,"sharing":"exclusive","length":14400.0,"cpu":1.0,"memory":67108864,"min_capability":null,"node":null,"pool":null,"devices":[]},"profile":"gpu","node":"schema","claims":[{"device":"SIMULATED-schema-0","atom":0,"lease_id":"1ea5e0001ea5e0001ea5e0001ea5e000"}],"boot_id":"an-older-hub","state":"reserved","target":"run","container_id":null,"granted_at":1700000001.0,"moved_at":1700000001.0,"ends_at":1700014401.0,"released_at":null,"epoch":7,"reason":null,"note":"","warned":false,"uncertain":false,"quarantined":false}}');
INSERT INTO "journal" VALUES(6,1700000002.0,7,'EntryStored','1ea5e0001ea5e0001ea5e0001ea5e000','{"type":"EntryStored","entry":{"id":"1ea5e0001ea5e0001ea5e0001ea5e000","key":{"hub":"hub","user":"alice","server":""},"groups":["lab"],"request":{"count":1,"model":null,"min_memory":0,"sharing":"exclusive","length":14400.0,"cpu":1.0,"memory":67108864,"min_capability":null,"node":null,"pool":null,"devices":[]},"profile":"gpu","boot_id":"an-older-hub","state":"granted","submitted_at":1700000000.0,"seq":1,"lease_id":"1ea5e0001ea5e0001ea5e0001ea5e000"}}');
INSERT INTO "journal" VALUES(7,1700000002.0,7,'LeaseStored','1ea5e0001ea5e0001ea5e0001ea5e000','{"type":"LeaseStored","lease":{"id":"1ea5e0001ea5e0001ea5e0001ea5e000","key":{"hub":"hub","user":"alice","server":""},"groups":["lab"],"request":{"count":1,"model":null,"min_memory":0,"sharing":"exclusive","length":14400.0,"cpu":1.0,"memory":67108864,"min_capability":null,"node":null,"pool":null,"devices":[]},"profile":"gpu","node":"schema","claims":[{"device":"SIMULATED-schema-0","atom":0,"lease_id":"1ea5e0001ea5e0001ea5e0001ea5e000"}],"boot_id":"an-older-hub","state":"starting","target":"run","container_id":"c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00","granted_at":1700000001.0,"moved_at":1700000001.0,"ends_at":1700014401.0,"released_at":null,"epoch":7,"reason":null,"note":"","warned":false,"uncertain":false,"quarantined":false}}');
INSERT INTO "journal" VALUES(8,1700000002.0,7,'EntryStored','1ea5e0001ea5e0001ea5e0001ea5e000','{"type":"EntryStored","entry":{"id":"1ea5e0001ea5e0001ea5e0001ea5e000","key":{"hub":"hub","user":"alice","server":""},"groups":["lab"],"request":{"count":1,"model":null,"min_memory":0,"sharing":"exclusive","length":14400.0,"cpu":1.0,"memory":67108864,"min_capability":null,"node":null,"pool":null,"devices":[]},"profile":"gpu","boot_id":"an-older-hub","state":"bound","submitted_at":1700000000.0,"seq":1,"lease_id":"1ea5e0001ea5e0001ea5e0001ea5e000"}}');
INSERT INTO "journal" VALUES(9,1700000002.0,7,'LeaseStored','1ea5e0001ea5e0001ea5e0001ea5e000','{"type":"LeaseStored","lease":{"id":"1ea5e0001ea5e0001ea5e0001ea5e000","key":{"hub":"hub","user":"alice","server":""},"groups":["lab"],"request":{"count":1,"model":null,"min_memory":0,"sharing":"exclusive","length":14400.0,"cpu":1.0,"memory":67108864,"min_capability":null,"node":null,"pool":null,"devices":[]},"profile":"gpu","node":"schema","claims":[{"device":"SIMULATED-schema-0","atom":0,"lease_id":"1ea5e0001ea5e0001ea5e0001ea5e000"}],"boot_id":"an-older-hub","state":"running","target":"run","container_id":"c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00","granted_at":1700000001.0,"moved_at":1700000001.0,"ends_at":1700014401.0,"released_at":null,"epoch":7,"reason":null,"note":"","warned":false,"uncertain":false,"quarantined":false}}');
INSERT INTO "journal" VALUES(10,1700000002.0,7,'EntryStored','e4724000e4724000e4724000e4724000','{"type":"EntryStored","entry":{"id":"e4724000e4724000e4724000e4724000","key":{"hub":"hub","user":"bob","server":""},"groups":["lab"],"request":{"count":1,"model":null,"min_memory":0,"sharing":"exclusive","length":14400.0,"cpu":1.0,"memory":67108864,"min_capability":null,"node":null,"pool":null,"devices":[]},"profile":"gpu","boot_id":"an-older-hub","state":"queued","submitted_at":1700000000.0,"seq":2,"lease_id":null}}');
INSERT INTO "journal" VALUES(11,1700000002.0,7,'Noted','alice','{"type":"Noted","kind":"adopted","text":"a note","subject":"alice"}');
CREATE TABLE leases (
	id TEXT NOT NULL, 
	state TEXT NOT NULL, 
	live BOOLEAN NOT NULL, 
	hub TEXT NOT NULL, 
	username TEXT NOT NULL, 
	servername TEXT NOT NULL, 
	node TEXT NOT NULL, 
	granted_at FLOAT NOT NULL, 
	payload TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "leases" VALUES('0fe500000fe500000fe500000fe50000','released',0,'hub','carol','','schema',1700000001.0,'{"type":"LeaseStored","lease":{"id":"0fe500000fe500000fe500000fe50000","key":{"hub":"hub","user":"carol","server":""},"groups":["lab"],"request":{"count":1,"model":null,"min_memory":0,"sharing":"exclusive","length":14400.0,"cpu":1.0,"memory":67108864,"min_capability":null,"node":null,"pool":null,"devices":[]},"profile":"gpu","node":"schema","claims":[],"boot_id":"an-older-hub","state":"released","target":"gone","container_id":null,"granted_at":1700000001.0,"moved_at":1700000001.0,"ends_at":1700014401.0,"released_at":1700000000.0,"epoch":7,"reason":"stopped","note":"","warned":false,"uncertain":false,"quarantined":false}}');
INSERT INTO "leases" VALUES('1ea5e0001ea5e0001ea5e0001ea5e000','running',1,'hub','alice','','schema',1700000001.0,'{"type":"LeaseStored","lease":{"id":"1ea5e0001ea5e0001ea5e0001ea5e000","key":{"hub":"hub","user":"alice","server":""},"groups":["lab"],"request":{"count":1,"model":null,"min_memory":0,"sharing":"exclusive","length":14400.0,"cpu":1.0,"memory":67108864,"min_capability":null,"node":null,"pool":null,"devices":[]},"profile":"gpu","node":"schema","claims":[{"device":"SIMULATED-schema-0","atom":0,"lease_id":"1ea5e0001ea5e0001ea5e0001ea5e000"}],"boot_id":"an-older-hub","state":"running","target":"run","container_id":"c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00","granted_at":1700000001.0,"moved_at":1700000001.0,"ends_at":1700014401.0,"released_at":null,"epoch":7,"reason":null,"note":"","warned":false,"uncertain":false,"quarantined":false}}');
CREATE TABLE meta (
	one INTEGER NOT NULL, 
	ledger VARCHAR(32) NOT NULL, 
	epoch BIGINT NOT NULL, 
	commits BIGINT NOT NULL, 
	created FLOAT NOT NULL, 
	PRIMARY KEY (one), 
	CONSTRAINT meta_one_row CHECK (one = 1)
);
INSERT INTO "meta" VALUES(1,'1edger001edger001edger001edger00',7,14,1.795336238327858448e+09);
CREATE TABLE nodes (
	name TEXT NOT NULL, 
	state TEXT NOT NULL, 
	payload TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "nodes" VALUES('schema','up','{"type":"NodeStored","node":{"name":"schema","memory":8589934592,"cpus":2.0,"boot_id":"boot","state":"up","admin":"open"}}');
CREATE INDEX entries_state ON entries (state);
CREATE INDEX leases_username ON leases (username, granted_at);
CREATE INDEX leases_granted_at ON leases (granted_at);
CREATE UNIQUE INDEX leases_one_live ON leases (hub, username, servername) WHERE live IS 1;
CREATE INDEX claims_lease_id ON claims (lease_id);
CREATE INDEX journal_subject ON journal (kind, subject);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('journal',11);
COMMIT;
